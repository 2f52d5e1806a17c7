//! Namespace

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::kind::{Column, Kind, SubresourceInfo};
use crate::names;

const FINALIZE: SubresourceInfo = SubresourceInfo {
    name: "finalize",
    group: "",
    version: "v1",
    kind: "Namespace",
    verbs: &["update"],
};
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Status", "The status of the namespace"),
    Column::AGE,
];
const SUBRESOURCES: &[SubresourceInfo] = &[FINALIZE, super::status("", "v1", "Namespace")];

pub(crate) fn kind() -> Kind {
    Builder::<Namespace>::cluster_scoped("namespace")
        .short_names(&["ns"])
        .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .fields(&[("status.phase", phase)])
        .name_rule(names::label)
        .defaults(label_with_name)
        .status(|namespace| &namespace.status, |namespace| &mut namespace.status)
        .on_create(start_active)
        .on_update(keep_finalizers)
        .deletion(has_finalizers, |namespace| set_phase(namespace, "Terminating"))
        .build()
}

fn label_with_name(namespace: &mut Namespace) {
    if let Some(name) = namespace.metadata.name.clone().filter(|name| !name.is_empty()) {
        namespace
            .metadata
            .labels
            .get_or_insert_default()
            .insert(NAME_LABEL.into(), name);
    }
}

fn start_active(namespace: &mut Namespace) {
    label_with_name(namespace);
    set_phase(namespace, "Active");
    let finalizers = namespace
        .spec
        .get_or_insert_default()
        .finalizers
        .get_or_insert_default();
    if !finalizers.iter().any(|one| one == "kubernetes") {
        finalizers.push("kubernetes".into());
    }
}

fn set_phase(namespace: &mut Namespace, phase: &str) {
    namespace.status.get_or_insert_default().phase = Some(phase.into());
}

/// Finalizers leave only while the namespace is being deleted; its controller takes them away.
fn keep_finalizers(new: &mut Namespace, old: &Namespace) {
    if old.metadata.deletion_timestamp.is_none() {
        new.spec.clone_from(&old.spec);
    }
}

fn has_finalizers(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|list| !list.is_empty())
}

fn phase(namespace: &Namespace) -> String {
    namespace
        .status
        .as_ref()
        .and_then(|status| status.phase.clone())
        .unwrap_or_default()
}

fn cells(namespace: &Namespace, now: Timestamp) -> Vec<Value> {
    let meta = &namespace.metadata;
    vec![name_cell(meta), phase(namespace).into(), age_cell(meta, now)]
}
