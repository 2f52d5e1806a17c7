//! One file for each kind.

mod config_map;
mod controller_revision;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod event_view;
mod ingress;
mod ingress_class;
mod lease;
mod member;
mod metrics;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
pub(crate) mod priority_class;
mod replica_set;
mod replication_controller;
mod secret;
mod service;
mod service_account;
mod stateful_set;
pub(crate) mod storage_class;
mod workload;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kind::{Kind, SubresourceInfo};

/// Every kind; discovery lists the groups in this order.
pub(crate) fn all() -> Vec<Kind> {
    vec![
        config_map::kind(),
        endpoints::kind(),
        event::kind(),
        namespace::kind(),
        node::kind(),
        persistent_volume::kind(),
        persistent_volume_claim::kind(),
        pod::kind(),
        replication_controller::kind(),
        secret::kind(),
        service::kind(),
        service_account::kind(),
        controller_revision::kind(),
        deployment::kind(),
        replica_set::kind(),
        stateful_set::kind(),
        event_view::kind(),
        lease::kind(),
        endpoint_slice::kind(),
        ingress::kind(),
        ingress_class::kind(),
        network_policy::kind(),
        priority_class::kind(),
        member::kind(),
        metrics::of_nodes(),
        metrics::of_pods(),
        storage_class::kind(),
    ]
}

const READ_AND_WRITE: &[&str] = &["get", "patch", "update"];

/// A `status` path.
const fn status(group: &'static str, version: &'static str, kind: &'static str) -> SubresourceInfo {
    SubresourceInfo {
        name: "status",
        group,
        version,
        kind,
        verbs: READ_AND_WRITE,
    }
}

/// A `scale` path.
const SCALE: SubresourceInfo = SubresourceInfo {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: READ_AND_WRITE,
};

/// Fills `field` in when it is absent or empty.
fn or_default(field: &mut Option<String>, default: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(default.to_owned());
    }
}

fn add_finalizer(meta: &mut ObjectMeta, finalizer: &str) {
    let finalizers = meta.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|known| known == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
}

#[cfg(test)]
mod tests;
