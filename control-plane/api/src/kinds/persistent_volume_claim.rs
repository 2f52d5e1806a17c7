//! PersistentVolumeClaim

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind, SubresourceInfo};
use crate::quantity::{self, Quantity};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Status", "Phase of the claim."),
    Column::text("Volume", "The volume that the claim is bound to."),
    Column::text("Capacity", "How much the volume holds."),
    Column::text("Access Modes", "How the volume may be mounted."),
    Column::text("StorageClass", "The class that the claim asks for."),
    Column::text("VolumeAttributesClass", "The class of the volume's attributes."),
    Column::AGE,
    Column::wide(
        "VolumeMode",
        "Whether the volume is a file system or a block device.",
    ),
];
const SUBRESOURCES: &[SubresourceInfo] = &[super::status("", "v1", "PersistentVolumeClaim")];
const PROTECTION: &str = "kubernetes.io/pvc-protection";
const MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];
/// What an update may change.
const IMMUTABLE: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName \
                         for bound claims";

pub(crate) fn kind() -> Kind {
    Builder::<PersistentVolumeClaim>::namespaced("persistentvolumeclaim")
        .short_names(&["pvc"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .defaults(set_defaults)
        .on_create(protect)
        .status(|claim| &claim.status, |claim| &mut claim.status)
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

/// A claim that a pod uses does not go before the pod.
fn protect(claim: &mut PersistentVolumeClaim) {
    super::add_finalizer(&mut claim.metadata, PROTECTION);
    claim.status.get_or_insert_default().phase = Some("Pending".to_owned());
}

fn set_defaults(claim: &mut PersistentVolumeClaim) {
    let spec = claim.spec.get_or_insert_default();
    super::or_default(&mut spec.volume_mode, "Filesystem");
    if let Some(resources) = &mut spec.resources {
        quantity::make_canonical(resources.requests.as_mut());
    }
}

fn validate(claim: &PersistentVolumeClaim, errors: &mut FieldErrors) {
    match &claim.spec {
        Some(spec) => validate_spec(spec, Path::root("spec"), errors),
        None => errors.required(Path::root("spec"), ""),
    }
}

/// The spec of a claim, or of a template of one.
pub(crate) fn validate_spec(spec: &PersistentVolumeClaimSpec, path: Path<'_>, errors: &mut FieldErrors) {
    validate_modes(
        spec.access_modes.as_deref().unwrap_or_default(),
        path.child("accessModes"),
        errors,
    );
    let resources = path.child("resources");
    let requests = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    let path_of_storage = resources.child("requests");
    let path_of_storage = path_of_storage.key("storage");
    match requests.and_then(|requests| requests.get("storage")) {
        None => errors.required(path_of_storage, ""),
        Some(amount) => match Quantity::parse(&amount.0) {
            Ok(parsed) if parsed.value() <= 0 => {
                errors.invalid(path_of_storage, &amount.0, "must be greater than zero");
            }
            Ok(_) => {}
            Err(problem) => errors.invalid(path_of_storage, &amount.0, problem.to_string()),
        },
    }
    let mode = spec.volume_mode.as_deref().unwrap_or("Filesystem");
    if !["Filesystem", "Block"].contains(&mode) {
        errors.not_supported(path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
}

/// Checks a list of access modes; `ReadWriteOncePod` goes with no other.
pub(super) fn validate_modes(modes: &[String], path: Path<'_>, errors: &mut FieldErrors) {
    if modes.is_empty() {
        errors.required(path, "at least 1 access mode is required");
    }
    for mode in modes {
        if !MODES.iter().any(|(known, _)| known == mode) {
            errors.not_supported(path, mode.as_str(), &MODES.map(|(known, _)| known));
        }
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.forbidden(path, detail);
    }
}

fn validate_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut FieldErrors) {
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return;
    };
    let path = Path::root("spec");
    let is_bound = old.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let mut allowed = old_spec.clone();
    if is_bound {
        allowed.resources.clone_from(&new_spec.resources);
        allowed
            .volume_attributes_class_name
            .clone_from(&new_spec.volume_attributes_class_name);
    }
    // The binder fills these in, and nobody changes them afterwards.
    if old_spec.volume_name.as_deref().unwrap_or_default().is_empty() {
        allowed.volume_name.clone_from(&new_spec.volume_name);
    }
    if old_spec.storage_class_name.is_none() {
        allowed
            .storage_class_name
            .clone_from(&new_spec.storage_class_name);
    }
    if *new_spec != allowed {
        errors.forbidden(path, IMMUTABLE);
    }
    let (new_size, old_size) = (storage_request(new_spec), storage_request(old_spec));
    let given = old
        .status
        .as_ref()
        .and_then(|status| Quantity::get(status.capacity.as_ref(), "storage"));
    if let (Some(new_size), Some(old_size)) = (new_size, old_size)
        && new_size.value() < old_size.value()
        && given.is_none_or(|given| new_size.value() <= given.value())
    {
        let resources = path.child("resources");
        let requests = resources.child("requests");
        errors.forbidden(
            requests.child("storage"),
            "field can not be less than status.capacity",
        );
    }
}

/// How much the claim asks for.
fn storage_request(spec: &PersistentVolumeClaimSpec) -> Option<Quantity> {
    Quantity::get(spec.resources.as_ref()?.requests.as_ref(), "storage")
}

/// `RWO,ROX`, as tables show access modes.
pub(super) fn access_modes(modes: Option<&[String]>) -> String {
    let modes = modes.unwrap_or_default();
    let shown = MODES
        .iter()
        .filter(|(mode, _)| modes.iter().any(|have| have == mode));
    shown.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The mode as tables show it.
pub(super) fn volume_mode_name(mode: Option<&str>) -> String {
    mode.unwrap_or("Filesystem").to_owned()
}

fn cells(claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Value> {
    let none = PersistentVolumeClaimSpec::default();
    let spec = claim.spec.as_ref().unwrap_or(&none);
    let status = claim.status.as_ref();
    let is_bound = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
    let capacity = status
        .and_then(|status| status.capacity.as_ref()?.get("storage"))
        .filter(|_| is_bound);
    let modes = status
        .and_then(|status| status.access_modes.as_deref())
        .filter(|_| is_bound);
    let phase = match claim.metadata.deletion_timestamp {
        Some(_) => Some("Terminating".to_owned()),
        None => status.and_then(|status| status.phase.clone()),
    };
    vec![
        name_cell(&claim.metadata),
        phase.unwrap_or_default().into(),
        spec.volume_name.clone().unwrap_or_default().into(),
        capacity.map(|amount| amount.0.clone()).unwrap_or_default().into(),
        access_modes(modes).into(),
        spec.storage_class_name.clone().unwrap_or_default().into(),
        spec.volume_attributes_class_name
            .clone()
            .unwrap_or_else(|| "<unset>".to_owned())
            .into(),
        age_cell(&claim.metadata, now),
        volume_mode_name(spec.volume_mode.as_deref()).into(),
    ]
}
