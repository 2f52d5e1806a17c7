//! NetworkPolicy

mod validate;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPort, NetworkPolicySpec};
use serde_json::Value;

use super::workload::selector_text;
use crate::builder::{Builder, age_cell, name_cell};
use crate::kind::{Column, Kind};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text(
        "Pod-Selector",
        "Selects the pods to which this NetworkPolicy object applies.",
    ),
    Column::AGE,
];

pub(crate) fn kind() -> Kind {
    Builder::<NetworkPolicy>::namespaced("networkpolicy")
        .short_names(&["netpol"])
        .columns(COLUMNS, cells)
        .defaults(set_defaults)
        .generation(|policy| &policy.spec)
        .validate(validate::validate)
        .build()
}

fn set_defaults(policy: &mut NetworkPolicy) {
    let spec = policy.spec.get_or_insert_default();
    spec.pod_selector.get_or_insert_default();
    let ingress = spec.ingress.iter_mut().flatten().map(|rule| &mut rule.ports);
    let egress = spec.egress.iter_mut().flatten().map(|rule| &mut rule.ports);
    for port in ingress.chain(egress).flatten().flatten() {
        set_port_defaults(port);
    }
    if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
        spec.policy_types = Some(types_of(spec));
    }
}

fn set_port_defaults(port: &mut NetworkPolicyPort) {
    if port.protocol.as_deref().is_none_or(str::is_empty) {
        port.protocol = Some("TCP".into());
    }
}

/// A policy is about what comes in, and about what goes out if it says anything of that.
fn types_of(spec: &NetworkPolicySpec) -> Vec<String> {
    let mut types = vec!["Ingress".to_owned()];
    if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
        types.push("Egress".into());
    }
    types
}

fn cells(policy: &NetworkPolicy, now: Timestamp) -> Vec<Value> {
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
    vec![
        name_cell(&policy.metadata),
        selector.map_or_else(|| "<none>".into(), selector_text).into(),
        age_cell(&policy.metadata, now),
    ]
}
