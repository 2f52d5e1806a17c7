//! Node

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path, Verbatim};
use crate::kind::{Column, Kind, SubresourceInfo};
use crate::names;
use crate::quantity::{self, Quantity};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Status", "The status of the node"),
    Column::text("Roles", "The roles of the node"),
    Column::AGE,
    Column::text("Version", "Kubelet Version reported by the node."),
    Column::wide("Internal-IP", "The node's address within the cluster."),
    Column::wide("External-IP", "The node's address outside of the cluster."),
    Column::wide("OS-Image", "OS Image reported by the node from /etc/os-release."),
    Column::wide(
        "Kernel-Version",
        "Kernel Version reported by the node from 'uname -r'.",
    ),
    Column::wide(
        "Container-Runtime",
        "ContainerRuntime Version reported by the node.",
    ),
];
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
const SUBRESOURCES: &[SubresourceInfo] = &[
    SubresourceInfo {
        name: "proxy",
        group: "",
        version: "v1",
        kind: "NodeProxyOptions",
        verbs: &["get"],
    },
    super::status("", "v1", "Node"),
];

pub(crate) fn kind() -> Kind {
    Builder::<Node>::cluster_scoped("node")
        .short_names(&["no"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .fields(&[("spec.unschedulable", |node| is_unschedulable(node).to_string())])
        .defaults(set_defaults)
        .status(|node| &node.status, |node| &mut node.status)
        .keep_status_on_create()
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

/// What a node does not set aside can be allocated.
fn set_defaults(node: &mut Node) {
    node.spec.get_or_insert_default();
    if let Some(status) = &mut node.status {
        quantity::make_canonical(status.capacity.as_mut());
        quantity::make_canonical(status.allocatable.as_mut());
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false)
}

fn validate(node: &Node, errors: &mut FieldErrors) {
    let spec = Path::root("spec");
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    validate_taints(taints, spec.child("taints"), errors);
    let root = Path::root("status");
    let lists = node.status.iter().flat_map(|status| {
        [
            ("capacity", status.capacity.as_ref()),
            ("allocatable", status.allocatable.as_ref()),
        ]
    });
    for (field, list) in lists {
        let path = root.child(field);
        for (name, amount) in list.into_iter().flatten() {
            match Quantity::parse(&amount.0) {
                Ok(amount) if amount.is_negative() => {
                    let detail = "must be greater than or equal to 0";
                    errors.invalid(path.key(name), amount.to_string(), detail);
                }
                Ok(_) => {}
                Err(problem) => errors.invalid(path.key(name), &amount.0, problem.to_string()),
            }
        }
    }
}

fn validate_taints(taints: &[Taint], path: Path<'_>, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        for problem in names::qualified(&taint.key) {
            errors.invalid(path.child("key"), &taint.key, problem);
        }
        for problem in names::label_value(taint.value.as_deref().unwrap_or_default()) {
            errors.invalid(
                path.child("value"),
                taint.value.as_deref().unwrap_or_default(),
                problem,
            );
        }
        match taint.effect.as_str() {
            "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
            "" => errors.required(path.child("effect"), ""),
            other => {
                let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
                errors.not_supported(path.child("effect"), other, &supported);
            }
        }
        if !seen.insert((&taint.key, &taint.effect)) {
            let shown = format!("{}:{}", taint.key, taint.effect);
            errors.duplicate(path, Verbatim(shown));
        }
    }
}

fn validate_update(new: &Node, old: &Node, errors: &mut FieldErrors) {
    let spec = Path::root("spec");
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    for (field, name, new, old) in [
        ("podCIDRs", "podCIDR", &new.pod_cidr, &old.pod_cidr),
        ("providerID", "providerID", &new.provider_id, &old.provider_id),
    ] {
        if new != old && old.as_deref().is_some_and(|old| !old.is_empty()) {
            let detail = format!("node updates may not change {name} except from \"\" to valid");
            errors.forbidden(spec.child(field), detail);
        }
    }
}

fn cells(node: &Node, now: Timestamp) -> Vec<Value> {
    let none = NodeStatus::default();
    let status = node.status.as_ref().unwrap_or(&none);
    let info = status.node_info.as_ref();
    let known = |text: Option<&String>| {
        text.filter(|text| !text.is_empty())
            .map_or("<unknown>", String::as_str)
            .into()
    };
    vec![
        name_cell(&node.metadata),
        status_text(node, status).into(),
        roles(node).into(),
        age_cell(&node.metadata, now),
        info.map(|info| info.kubelet_version.clone())
            .unwrap_or_default()
            .into(),
        address(status, "InternalIP").into(),
        address(status, "ExternalIP").into(),
        known(info.map(|info| &info.os_image)),
        known(info.map(|info| &info.kernel_version)),
        known(info.map(|info| &info.container_runtime_version)),
    ]
}

/// `Ready`, `NotReady` or `Unknown`, and whether new pods are kept away.
fn status_text(node: &Node, status: &NodeStatus) -> String {
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    let ready = match ready.map(|condition| condition.status.as_str()) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    };
    match is_unschedulable(node) {
        true => format!("{ready},SchedulingDisabled"),
        false => ready.to_owned(),
    }
}

fn roles(node: &Node) -> String {
    let labels = node.metadata.labels.iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role).filter(|role| !role.is_empty()),
            None => Some(value.as_str()).filter(|role| key == ROLE_LABEL && !role.is_empty()),
        })
        .collect();
    if roles.is_empty() {
        return "<none>".to_owned();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'a>(status: &'a NodeStatus, type_: &str) -> &'a str {
    let found = status
        .addresses
        .iter()
        .flatten()
        .find(|address| address.type_ == type_);
    found.map_or("<none>", |address| address.address.as_str())
}
