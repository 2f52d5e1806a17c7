//! Slices from Endpoints that somebody wrote by hand, for services without a selector.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};

use super::plan::{Common, PortGroup, group};
use super::slices::{carry_out, remove_all};
use super::{HEADLESS_LABEL, MANAGED_BY, SERVICE_LABEL, SKIP_MIRROR, observe};
use crate::context::Context;
use crate::labels::controller_ref;
use crate::runner::{Next, ObjectKey, Reconcile, ReconcileError};

const NAME: &str = "endpointslicemirroring-controller.k8s.io";

/// Keyed by service, whose name is also that of its Endpoints.
pub(super) struct MirrorController {
    pub(super) ctx: Arc<Context>,
}

impl Reconcile for MirrorController {
    type Key = ObjectKey;
    const NAME: &'static str = "endpointslicemirroring-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let service = self.ctx.services.get(&key.namespace, &key.name);
        let endpoints = self.ctx.endpoints.get(&key.namespace, &key.name);
        match (service, endpoints) {
            (Some(service), Some(endpoints)) if is_mirrored(&service, &endpoints) => {
                let common = common(&service, &endpoints);
                carry_out(&self.ctx, key, NAME, &common, groups(&endpoints)).await?;
            }
            _ => remove_all(&self.ctx, key, NAME).await?,
        }
        Ok(Next::Wait)
    }
}

fn is_mirrored(service: &Service, endpoints: &Endpoints) -> bool {
    let spec = service.spec.as_ref();
    let has_selector = spec.is_some_and(|spec| spec.selector.as_ref().is_some_and(|all| !all.is_empty()));
    let labels = endpoints.metadata.labels.as_ref();
    let is_skipped = labels
        .and_then(|labels| labels.get(SKIP_MIRROR))
        .is_some_and(|skip| skip == "true");
    !has_selector
        && !is_skipped
        && service.metadata.deletion_timestamp.is_none()
        && endpoints.metadata.deletion_timestamp.is_none()
}

fn common(service: &Service, endpoints: &Endpoints) -> Common {
    let meta = &endpoints.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    if observe::is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(SERVICE_LABEL.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    Common {
        namespace: meta.namespace.clone().unwrap_or_default(),
        base_name: name,
        labels,
        owner: controller_ref("v1", "Endpoints", meta),
    }
}

/// One group of endpoints for each set of ports; IPv4 so far.
pub(super) fn groups(endpoints: &Endpoints) -> Vec<PortGroup> {
    let mut groups = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let port = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        };
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset
            .not_ready_addresses
            .iter()
            .flatten()
            .map(|address| (address, false));
        for (address, is_ready) in ready.chain(not_ready) {
            if address.ip.parse::<std::net::Ipv4Addr>().is_ok() {
                group(&mut groups, ports.clone(), endpoint(address, is_ready));
            }
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(is_ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
