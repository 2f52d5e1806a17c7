//! The service `kubernetes`: its endpoints are the servers.
//!
//! A server is left out while its node is not ready; when none is, all are named, for one of them may be right.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use flotilla_api::Reason;
use flotilla_raft::Member;
use flotilla_resources::{Part, TypedObject};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Node, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::context::Context;
use crate::endpoints::SKIP_MIRROR;
use crate::node::is_ready;
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
const PORT: i32 = 443;
const PORT_NAME: &str = "https";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

pub(super) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let key = ObjectKey::cluster(NAME);
    let queue = Queue::new();
    queue.add(key.clone());
    let (feed, wake) = (queue.clone(), key.clone());
    ctx.nodes.subscribe(move |_| feed.add(wake.clone()));
    let (feed, wake) = (queue.clone(), key.clone());
    ctx.services.subscribe(move |event| {
        let found = ObjectKey::of(&**event.object());
        if found.namespace == NAMESPACE && found.name == NAME {
            feed.add(wake.clone());
        }
    });
    let (feed, shutdown) = (queue.clone(), runner.shutdown.clone());
    let mut leadership = ctx.resources.replica().leadership();
    runner.tracker.spawn(async move {
        loop {
            // Both arms only wait.
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
            }
            feed.add(key.clone());
        }
    });
    runner.start(KubernetesController { ctx: Arc::clone(ctx) }, queue);
}

struct KubernetesController {
    ctx: Arc<Context>,
}

impl Reconcile for KubernetesController {
    type Key = ObjectKey;
    const NAME: &'static str = "kubernetes-service-controller";

    async fn reconcile(&self, _key: &ObjectKey) -> Result<Next, ReconcileError> {
        if self.ctx.services.get(NAMESPACE, NAME).is_none() {
            self.ensure(
                service(&self.ctx.options.service_cidr.kubernetes().to_string()),
                |_, _| false,
            )
            .await?;
        }
        let members = self.ctx.resources.replica().members();
        let servers = servers(&members, &self.ctx.nodes.list(None));
        self.ensure(endpoints(&servers), |found: &mut Endpoints, wanted| {
            let changed = found.subsets != wanted.subsets;
            found.subsets.clone_from(&wanted.subsets);
            changed
        })
        .await?;
        self.ensure(slice(&servers), |found: &mut discovery::EndpointSlice, wanted| {
            let changed = found.endpoints != wanted.endpoints || found.ports != wanted.ports;
            found.endpoints.clone_from(&wanted.endpoints);
            found.ports.clone_from(&wanted.ports);
            changed
        })
        .await?;
        Ok(Next::Wait)
    }
}

impl KubernetesController {
    /// Creates the object, or lets `adopt` change the one that is there.
    async fn ensure<T: TypedObject>(
        &self,
        wanted: T,
        adopt: impl Fn(&mut T, &T) -> bool,
    ) -> Result<(), ReconcileError> {
        let resources = &self.ctx.resources;
        let stored = resources
            .modify(NAMESPACE, NAME, Part::Whole, |found: &mut T| {
                adopt(found, &wanted)
            })
            .await?;
        if stored.is_some() || resources.get_typed::<T>(NAMESPACE, NAME).await.is_ok() {
            return Ok(());
        }
        match resources.create_typed(wanted).await {
            Err(status) if status.reason != Reason::AlreadyExists => Err(status.into()),
            _ => Ok(()),
        }
    }
}

/// Addresses of the servers that answer, by port.
type Servers = BTreeMap<u16, Vec<IpAddr>>;

fn servers(members: &[Member], nodes: &[Arc<Node>]) -> Servers {
    let lost = |member: &&Member| {
        let node = nodes
            .iter()
            .find(|node| node.metadata.name.as_ref() == Some(&member.name));
        node.is_some_and(|node| !is_ready(node))
    };
    let (gone, alive): (Vec<&Member>, Vec<&Member>) = members.iter().partition(lost);
    let mut servers = Servers::new();
    for member in if alive.is_empty() { gone } else { alive } {
        // One that is known by a name cannot be an endpoint.
        if let Ok(address) = member.address.parse::<SocketAddr>() {
            servers.entry(address.port()).or_default().push(address.ip());
        }
    }
    servers.values_mut().for_each(|addresses| addresses.sort());
    servers
}

fn meta(labels: &[(&str, &str)]) -> ObjectMeta {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(labels.collect()),
        ..ObjectMeta::default()
    }
}

fn service(address: &str) -> Service {
    let port = ServicePort {
        name: Some(PORT_NAME.to_owned()),
        port: PORT,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(6443)),
        ..ServicePort::default()
    };
    Service {
        metadata: meta(&[("component", "apiserver"), ("provider", "kubernetes")]),
        spec: Some(ServiceSpec {
            cluster_ip: Some(address.to_owned()),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn endpoints(servers: &Servers) -> Endpoints {
    let subset = |(port, addresses): (&u16, &Vec<IpAddr>)| EndpointSubset {
        addresses: Some(
            addresses
                .iter()
                .map(|address| EndpointAddress {
                    ip: address.to_string(),
                    ..EndpointAddress::default()
                })
                .collect(),
        ),
        ports: Some(vec![EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: i32::from(*port),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
        ..EndpointSubset::default()
    };
    Endpoints {
        metadata: meta(&[(SKIP_MIRROR, "true")]),
        subsets: Some(servers.iter().map(subset).collect()),
    }
}

/// One slice of the port that most servers have: servers on other ports are for other addresses of the same machine.
fn slice(servers: &Servers) -> discovery::EndpointSlice {
    let (port, addresses) = servers
        .iter()
        .max_by_key(|(_, addresses)| addresses.len())
        .map_or_else(|| (0, Vec::new()), |(port, addresses)| (*port, addresses.clone()));
    let addresses = addresses.into_iter().filter(IpAddr::is_ipv4);
    let endpoint = |address: IpAddr| discovery::Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(discovery::EndpointConditions {
            ready: Some(true),
            ..discovery::EndpointConditions::default()
        }),
        ..discovery::Endpoint::default()
    };
    discovery::EndpointSlice {
        metadata: meta(&[(SERVICE_LABEL, NAME)]),
        address_type: "IPv4".to_owned(),
        endpoints: addresses.map(endpoint).collect(),
        ports: Some(vec![discovery::EndpointPort {
            name: Some(PORT_NAME.to_owned()),
            port: Some(i32::from(port)),
            protocol: Some("TCP".to_owned()),
            ..discovery::EndpointPort::default()
        }]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(nodes: &[(&str, &str)]) -> String {
        let members: Vec<Member> = (1..=3)
            .map(|number| Member {
                id: number,
                name: format!("server-{number}"),
                address: format!("10.0.0.{number}:6443"),
                voter: true,
            })
            .collect();
        let node = |(name, ready): &(&str, &str)| {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            let node = json!({"metadata": {"name": name}, "status": {"conditions": conditions}});
            Arc::new(serde_json::from_value(node).unwrap())
        };
        let nodes: Vec<Arc<Node>> = nodes.iter().map(node).collect();
        let slice = slice(&servers(&members, &nodes));
        let addresses: Vec<String> = slice
            .endpoints
            .iter()
            .map(|endpoint| endpoint.addresses.join(" "))
            .collect();
        addresses.join(" ")
    }

    #[test]
    fn servers_whose_node_is_lost_are_left_out_unless_all_are() {
        let all = "10.0.0.1 10.0.0.2 10.0.0.3";
        assert_eq!(named(&[]), all, "a server need not be a node");
        assert_eq!(
            named(&[("server-1", "True"), ("server-2", "Unknown")]),
            "10.0.0.1 10.0.0.3"
        );
        let lost = [
            ("server-1", "False"),
            ("server-2", "Unknown"),
            ("server-3", "False"),
        ];
        assert_eq!(named(&lost), all);
    }
}
