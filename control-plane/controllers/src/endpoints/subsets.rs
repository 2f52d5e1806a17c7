//! Endpoints from pods, for clients that know no slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_resources::{DeleteOptions, Part};
use flotilla_store::Revision;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::observe;
use crate::context::{Context, revision_of, revision_of_deletion, settle, unless_gone};
use crate::pods;
use crate::runner::{Next, ObjectKey, Reconcile, ReconcileError};

/// More addresses are left out, ready ones last.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const NAME: &str = "endpoint-controller";

/// Keyed by service.
pub(super) struct EndpointsController {
    pub(super) ctx: Arc<Context>,
}

impl Reconcile for EndpointsController {
    type Key = ObjectKey;
    const NAME: &'static str = NAME;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let present = self.ctx.endpoints.get(&key.namespace, &key.name);
        let service = self.ctx.services.get(&key.namespace, &key.name);
        let written = match (service, present) {
            (None, Some(present)) if is_ours(&present) => self.remove(key).await?,
            (Some(service), present)
                if observe::has_selector(&service) && service.metadata.deletion_timestamp.is_none() =>
            {
                let pods = self.ctx.pods.list(Some(&key.namespace));
                let wanted = endpoints(&service, pods.iter().map(|pod| &**pod));
                self.write(key, wanted, present.as_deref()).await?
            }
            _ => Revision(0),
        };
        settle(&self.ctx.endpoints, written).await?;
        Ok(Next::Wait)
    }
}

impl EndpointsController {
    async fn remove(&self, key: &ObjectKey) -> Result<Revision, ReconcileError> {
        let options = DeleteOptions::default();
        let deleted = self
            .ctx
            .resources
            .delete_typed::<Endpoints>(&key.namespace, &key.name, &options)
            .await;
        Ok(unless_gone(deleted)?
            .as_ref()
            .map_or(Revision(0), revision_of_deletion))
    }

    async fn write(
        &self,
        key: &ObjectKey,
        wanted: Endpoints,
        present: Option<&Endpoints>,
    ) -> Result<Revision, ReconcileError> {
        if present.is_none() {
            return Ok(revision_of(&self.ctx.resources.create_typed(wanted).await?));
        }
        let adopt = |found: &mut Endpoints| {
            let before = found.clone();
            found.subsets.clone_from(&wanted.subsets);
            found.metadata.labels.clone_from(&wanted.metadata.labels);
            let annotations = found.metadata.annotations.get_or_insert_default();
            annotations.remove(OVER_CAPACITY);
            annotations.extend(wanted.metadata.annotations.clone().unwrap_or_default());
            if annotations.is_empty() {
                found.metadata.annotations = None;
            }
            *found != before
        };
        if present.is_some_and(|present| !adopt(&mut present.clone())) {
            return Ok(Revision(0));
        }
        let changed = self
            .ctx
            .resources
            .modify(&key.namespace, &key.name, Part::Whole, adopt)
            .await?;
        Ok(changed.as_ref().map_or(Revision(0), revision_of))
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .is_some_and(|manager| manager == NAME)
}

type Ports = Vec<EndpointPort>;

/// What the service's Endpoints should be.
pub(super) fn endpoints<'a>(service: &Service, pods: impl Iterator<Item = &'a Pod>) -> Endpoints {
    let publishes_all = service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        == Some(true);
    let mut by_ports: Vec<(Ports, Vec<EndpointAddress>, Vec<EndpointAddress>)> = Vec::new();
    let mut chosen: Vec<&Pod> = pods
        .filter(|pod| observe::selects(service, pod) && observe::is_candidate(pod))
        .filter(|pod| publishes_all || !pods::is_deleting(pod))
        .collect();
    chosen.sort_by_key(|pod| !pods::is_ready(pod));
    let is_over_capacity = chosen.len() > ADDRESSES_MAX;
    chosen.truncate(ADDRESSES_MAX);
    for pod in chosen {
        let (Some(address), ports) = (address(service, pod), ports(service, pod)) else {
            continue;
        };
        let at = by_ports
            .iter()
            .position(|(known, ..)| *known == ports)
            .unwrap_or_else(|| {
                by_ports.push((ports, Vec::new(), Vec::new()));
                by_ports.len() - 1
            });
        match publishes_all || pods::is_ready(pod) {
            true => by_ports[at].1.push(address),
            false => by_ports[at].2.push(address),
        }
    }
    let mut labels = observe::labels(service);
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    let truncated =
        is_over_capacity.then(|| BTreeMap::from([(OVER_CAPACITY.to_owned(), "truncated".to_owned())]));
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: truncated,
            ..ObjectMeta::default()
        },
        subsets: (!by_ports.is_empty()).then(|| by_ports.into_iter().map(subset).collect()),
    }
}

fn subset((ports, ready, not_ready): (Ports, Vec<EndpointAddress>, Vec<EndpointAddress>)) -> EndpointSubset {
    let sorted = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!addresses.is_empty()).then_some(addresses)
    };
    EndpointSubset {
        addresses: sorted(ready),
        not_ready_addresses: sorted(not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: observe::address(pod)?,
        hostname: observe::hostname(service, pod),
        node_name: Some(pods::node_name(pod).to_owned()),
        target_ref: Some(observe::reference(pod)),
    })
}

fn ports(service: &Service, pod: &Pod) -> Ports {
    let port = |port: k8s_openapi::api::discovery::v1::EndpointPort| {
        Some(EndpointPort {
            app_protocol: port.app_protocol,
            name: port.name.filter(|name| !name.is_empty()),
            port: port.port?,
            protocol: port.protocol,
        })
    };
    observe::ports(service, pod)
        .into_iter()
        .filter_map(port)
        .collect()
}
