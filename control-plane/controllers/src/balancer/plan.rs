//! Which addresses a service of type LoadBalancer should have. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Node, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{AddressPool, serves};

/// The class of services that are looked after here besides those of none.
const CLASS: &str = "flotilla.dev/arp";

/// What an address is chosen by.
pub(super) struct View<'a> {
    pub(super) pool: &'a AddressPool,
    pub(super) services: &'a [Arc<Service>],
    pub(super) nodes: &'a [Arc<Node>],
    /// Of the service itself.
    pub(super) slices: &'a [Arc<EndpointSlice>],
    /// Ports of the nodes' own addresses that no service may take: those of the API.
    pub(super) api_ports: BTreeSet<i32>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The status is right.
    Keep,
    /// These are its addresses, perhaps none.
    Write(Vec<Ipv4Addr>),
    /// It can have none; why.
    Refuse(String),
}

/// Whether the service has, or should have, addresses from here.
pub(super) fn concerns(service: &Service) -> bool {
    is_ours(service) || (!has_foreign_class(service) && !ingress(service).is_empty())
}

/// Whether the service should have an address and has none.
pub(super) fn waits(service: &Service) -> bool {
    is_ours(service) && ingress(service).is_empty()
}

/// Whether only nodes with endpoints may receive the service's connections.
pub(super) fn keeps_clients(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    is_ours(service) && spec.is_some_and(|spec| spec.external_traffic_policy.as_deref() == Some("Local"))
}

fn is_ours(service: &Service) -> bool {
    let is_balancer = service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    is_balancer && !has_foreign_class(service) && service.metadata.deletion_timestamp.is_none()
}

fn has_foreign_class(service: &Service) -> bool {
    let class = service
        .spec
        .as_ref()
        .and_then(|spec| spec.load_balancer_class.as_deref());
    class.is_some_and(|class| class != CLASS)
}

/// The addresses that the service has.
pub(super) fn ingress(service: &Service) -> Vec<Ipv4Addr> {
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer
        .iter()
        .flat_map(|balancer| balancer.ingress.iter().flatten());
    ingress
        .filter_map(|one| one.ip.as_deref()?.parse().ok())
        .collect()
}

/// Writes the addresses into the status; says whether that changed it.
pub(super) fn set_ingress(service: &mut Service, addresses: &[Ipv4Addr]) -> bool {
    let one = |address: &Ipv4Addr| LoadBalancerIngress {
        ip: Some(address.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    let wanted = Some(LoadBalancerStatus {
        ingress: (!addresses.is_empty()).then(|| addresses.iter().map(one).collect()),
    });
    let status = service.status.get_or_insert_default();
    let changed = status.load_balancer != wanted;
    status.load_balancer = wanted;
    changed
}

pub(super) fn decide(service: &Service, view: &View<'_>) -> Decision {
    let present = ingress(service);
    let wanted = match service.spec.as_ref().filter(|_| is_ours(service)) {
        None => Ok(Vec::new()),
        Some(spec) if view.pool.is_empty() => from_nodes(service, spec, view),
        Some(spec) => from_pool(service, spec, view, &present),
    };
    match wanted {
        Err(message) => Decision::Refuse(message),
        Ok(wanted) if wanted == present => Decision::Keep,
        Ok(wanted) => Decision::Write(wanted),
    }
}

fn from_pool(
    service: &Service,
    spec: &ServiceSpec,
    view: &View<'_>,
    present: &[Ipv4Addr],
) -> Result<Vec<Ipv4Addr>, String> {
    let taken: BTreeSet<Ipv4Addr> = others(service, view).flat_map(ingress).collect();
    let is_free = |address: &Ipv4Addr| view.pool.contains(*address) && !taken.contains(address);
    if let Some(asked) = spec.load_balancer_ip.as_deref().filter(|asked| !asked.is_empty()) {
        let address = asked.parse().ok().filter(is_free);
        return address.map(|address| vec![address]).ok_or_else(|| {
            format!(
                "the address {asked} of spec.loadBalancerIP is not in the pool {}, or taken",
                view.pool
            )
        });
    }
    let kept = present.iter().find(|address| is_free(address)).copied();
    let address = kept.or_else(|| view.pool.addresses().find(is_free));
    address
        .map(|address| vec![address])
        .ok_or_else(|| format!("no address of the pool {} is free", view.pool))
}

/// The addresses of nodes that can receive; no two services share a port of them.
fn from_nodes(service: &Service, spec: &ServiceSpec, view: &View<'_>) -> Result<Vec<Ipv4Addr>, String> {
    let ports = |spec: &ServiceSpec| -> BTreeSet<(i32, String)> {
        let port = |port: &ServicePort| {
            (
                port.port,
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            )
        };
        spec.ports.iter().flatten().map(port).collect()
    };
    let own = ports(spec);
    if let Some((port, _)) = own
        .iter()
        .find(|(port, protocol)| protocol == "TCP" && view.api_ports.contains(port))
    {
        return Err(format!(
            "port {port} of the nodes' addresses is that of the API: use another port, or a pool"
        ));
    }
    for other in others(service, view).filter(|other| is_ours(other) && !ingress(other).is_empty()) {
        let theirs = other.spec.as_ref().map(ports).unwrap_or_default();
        if let Some((port, protocol)) = own.intersection(&theirs).next() {
            return Err(format!(
                "port {port}/{protocol} of the nodes' addresses belongs to service {}/{}: use another port, or a pool",
                other.metadata.namespace.as_deref().unwrap_or_default(),
                other.metadata.name.as_deref().unwrap_or_default()
            ));
        }
    }
    let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let able = view
        .nodes
        .iter()
        .filter(|node| serves(node) && (!is_local || has_endpoints(node, view.slices)));
    let addresses: BTreeSet<Ipv4Addr> = able.filter_map(|node| address(node)).collect();
    Ok(addresses.into_iter().collect())
}

fn others<'a>(service: &'a Service, view: &'a View<'_>) -> impl Iterator<Item = &'a Service> {
    let uid = service.metadata.uid.as_ref();
    view.services
        .iter()
        .map(|other| &**other)
        .filter(move |other| other.metadata.uid.as_ref() != uid)
}

fn has_endpoints(node: &Node, slices: &[Arc<EndpointSlice>]) -> bool {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| {
        endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true)
    });
    ready
        .into_iter()
        .any(|endpoint| endpoint.node_name == node.metadata.name)
}

/// The address at which a node is reached.
pub(crate) fn address(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, port: i32, fields: &Value, ingress: &[&str]) -> Arc<Service> {
        let mut spec = json!({"type": "LoadBalancer", "ports": [{"port": port, "protocol": "TCP"}]});
        spec.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let ingress: Vec<Value> = ingress.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"loadBalancer": {"ingress": ingress}});
        let service = json!({"metadata": {"name": name, "namespace": "a", "uid": name}, "spec": spec, "status": status});
        Arc::new(serde_json::from_value(service).unwrap())
    }

    fn node(name: &str, address: &str, ready: &str) -> Arc<Node> {
        let status = json!({
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": ready}],
        });
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap())
    }

    fn decided(pool: &str, service: &Arc<Service>, others: &[Arc<Service>]) -> String {
        let services: Vec<Arc<Service>> = others.iter().chain([service]).cloned().collect();
        let nodes = [
            node("n1", "10.0.0.1", "True"),
            node("n2", "10.0.0.2", "False"),
            node("n3", "10.0.0.3", "True"),
        ];
        let slice = json!({"metadata": {}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.42.0.1"], "nodeName": "n3"}]});
        let slices = [Arc::new(serde_json::from_value(slice).unwrap())];
        let view = View {
            pool: &pool.parse().unwrap(),
            services: &services,
            nodes: &nodes,
            slices: &slices,
            api_ports: BTreeSet::from([6443]),
        };
        match decide(service, &view) {
            Decision::Keep => "keep".to_owned(),
            Decision::Write(addresses) => {
                let shown: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
                format!("write {}", shown.join(" "))
            }
            Decision::Refuse(message) => message,
        }
    }

    #[test]
    fn an_address_of_the_pool_belongs_to_one_service() {
        let pool = "10.0.0.200-10.0.0.201";
        let plain = json!({});
        let (one, two) = (
            service("x", 80, &plain, &["10.0.0.200"]),
            service("y", 80, &plain, &["10.0.0.201"]),
        );
        let new = service("new", 80, &plain, &[]);
        assert_eq!(decided(pool, &new, &[]), "write 10.0.0.200");
        assert_eq!(
            decided(pool, &new, std::slice::from_ref(&one)),
            "write 10.0.0.201"
        );
        assert_eq!(
            decided(pool, &new, &[one.clone(), two]),
            format!("no address of the pool {pool} is free")
        );
        assert_eq!(decided(pool, &one, &[]), "keep");
        assert_eq!(
            decided("10.0.0.100", &one, &[]),
            "write 10.0.0.100",
            "the pool has changed"
        );
        let asking = service("asking", 80, &json!({"loadBalancerIP": "10.0.0.201"}), &[]);
        assert_eq!(decided(pool, &asking, &[one]), "write 10.0.0.201");
        let asking = service("asking", 80, &json!({"loadBalancerIP": "10.0.0.1"}), &[]);
        assert!(decided(pool, &asking, &[]).contains("not in the pool"));
    }

    #[test]
    fn without_a_pool_nodes_that_can_receive_lend_their_addresses() {
        let new = service("new", 80, &json!({}), &[]);
        assert_eq!(decided("", &new, &[]), "write 10.0.0.1 10.0.0.3");
        let local = service("new", 80, &json!({"externalTrafficPolicy": "Local"}), &[]);
        assert_eq!(decided("", &local, &[]), "write 10.0.0.3");
        let same_port = service("x", 80, &json!({}), &["10.0.0.1"]);
        assert!(
            decided("", &new, &[same_port])
                .starts_with("port 80/TCP of the nodes' addresses belongs to service a/x")
        );
        assert!(decided("", &service("new", 6443, &json!({}), &[]), &[]).starts_with("port 6443"));
    }

    #[test]
    fn other_types_give_addresses_up_and_other_classes_are_not_touched() {
        let plain = service("x", 80, &json!({"type": "ClusterIP"}), &["10.0.0.1"]);
        assert!(concerns(&plain));
        assert_eq!(decided("", &plain, &[]), "write ");
        assert!(!concerns(&service(
            "x",
            80,
            &json!({"loadBalancerClass": "other"}),
            &["10.0.0.1"]
        )));
    }
}
