//! StorageClass

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::builder::{Builder, age_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Provisioner", "Who makes the volumes of this class."),
    Column::text(
        "ReclaimPolicy",
        "What becomes of volumes once their claims are gone.",
    ),
    Column::text("VolumeBindingMode", "When volumes are made and bound."),
    Column {
        type_: "boolean",
        ..Column::text("AllowVolumeExpansion", "Whether volumes can grow.")
    },
    Column::AGE,
];
const DEFAULT_ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";
/// Who provisions disks on nodes: the nodes themselves.
pub const LOCAL_PROVISIONER: &str = "local.flotilla.dev";

pub(crate) fn kind() -> Kind {
    Builder::<StorageClass>::cluster_scoped("storageclass")
        .short_names(&["sc"])
        .columns(COLUMNS, cells)
        .defaults(set_defaults)
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

/// The class that every cluster starts with: disks on the node of their first pod.
pub fn local_storage_class() -> StorageClass {
    StorageClass {
        metadata: ObjectMeta {
            name: Some("local".to_owned()),
            annotations: Some([(DEFAULT_ANNOTATION.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        provisioner: LOCAL_PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    }
}

/// Whether claims that name no class get this one.
pub fn is_default_class(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(DEFAULT_ANNOTATION))
        .map(String::as_str)
        == Some("true")
}

fn set_defaults(class: &mut StorageClass) {
    super::or_default(&mut class.reclaim_policy, "Delete");
    super::or_default(&mut class.volume_binding_mode, "Immediate");
}

fn validate(class: &StorageClass, errors: &mut FieldErrors) {
    if class.provisioner.is_empty() {
        errors.required(Path::root("provisioner"), "");
    }
    let policy = class.reclaim_policy.as_deref().unwrap_or_default();
    if !["Delete", "Retain"].contains(&policy) {
        errors.not_supported(Path::root("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    let mode = class.volume_binding_mode.as_deref().unwrap_or_default();
    if !["Immediate", "WaitForFirstConsumer"].contains(&mode) {
        let supported = ["Immediate", "WaitForFirstConsumer"];
        errors.not_supported(Path::root("volumeBindingMode"), mode, &supported);
    }
}

fn validate_update(new: &StorageClass, old: &StorageClass, errors: &mut FieldErrors) {
    for (field, is_changed) in [
        ("parameters", new.parameters != old.parameters),
        ("provisioner", new.provisioner != old.provisioner),
        ("reclaimPolicy", new.reclaim_policy != old.reclaim_policy),
        (
            "volumeBindingMode",
            new.volume_binding_mode != old.volume_binding_mode,
        ),
    ] {
        if is_changed {
            errors.forbidden(Path::root(field), "updates to this field are forbidden.");
        }
    }
}

fn cells(class: &StorageClass, now: Timestamp) -> Vec<Value> {
    let name = class.metadata.name.clone().unwrap_or_default();
    let name = match is_default_class(class) {
        true => format!("{name} (default)"),
        false => name,
    };
    vec![
        name.into(),
        class.provisioner.clone().into(),
        class.reclaim_policy.clone().unwrap_or_default().into(),
        class.volume_binding_mode.clone().unwrap_or_default().into(),
        class.allow_volume_expansion.unwrap_or(false).into(),
        age_cell(&class.metadata, now),
    ]
}
