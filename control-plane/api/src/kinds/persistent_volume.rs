//! PersistentVolume

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind, SubresourceInfo};
use crate::quantity::{self, Quantity};

use super::persistent_volume_claim::{access_modes, validate_modes, volume_mode_name};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Capacity", "How much the volume holds."),
    Column::text("Access Modes", "How the volume may be mounted."),
    Column::text(
        "Reclaim Policy",
        "What becomes of the volume once its claim is gone.",
    ),
    Column::text("Status", "Phase of the volume."),
    Column::text("Claim", "The claim that the volume is bound to."),
    Column::text("StorageClass", "The class that the volume belongs to."),
    Column::text("VolumeAttributesClass", "The class of the volume's attributes."),
    Column::text("Reason", "Why the volume is in its phase."),
    Column::AGE,
    Column::wide(
        "VolumeMode",
        "Whether the volume is a file system or a block device.",
    ),
];
const SUBRESOURCES: &[SubresourceInfo] = &[super::status("", "v1", "PersistentVolume")];
const PROTECTION: &str = "kubernetes.io/pv-protection";

pub(crate) fn kind() -> Kind {
    Builder::<PersistentVolume>::cluster_scoped("persistentvolume")
        .short_names(&["pv"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .defaults(set_defaults)
        .on_create(protect)
        .status(|volume| &volume.status, |volume| &mut volume.status)
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

/// A volume that is bound does not go before its claim.
fn protect(volume: &mut PersistentVolume) {
    super::add_finalizer(&mut volume.metadata, PROTECTION);
    volume.status.get_or_insert_default().phase = Some("Pending".to_owned());
}

fn set_defaults(volume: &mut PersistentVolume) {
    let spec = volume.spec.get_or_insert_default();
    super::or_default(&mut spec.persistent_volume_reclaim_policy, "Retain");
    super::or_default(&mut spec.volume_mode, "Filesystem");
    quantity::make_canonical(spec.capacity.as_mut());
    if let Some(path) = &mut spec.host_path {
        path.type_.get_or_insert_default();
    }
}

/// The names of the sources that the volume has; exactly one is right.
fn sources(spec: &PersistentVolumeSpec) -> Vec<&'static str> {
    macro_rules! present {
        ($($field:ident => $name:literal),* $(,)?) => {
            [$((spec.$field.is_some(), $name)),*]
        };
    }
    let all = present! {
        aws_elastic_block_store => "awsElasticBlockStore", azure_disk => "azureDisk", azure_file => "azureFile",
        cephfs => "cephfs", cinder => "cinder", csi => "csi", fc => "fc", flex_volume => "flexVolume",
        flocker => "flocker", gce_persistent_disk => "gcePersistentDisk", glusterfs => "glusterfs",
        host_path => "hostPath", iscsi => "iscsi", local => "local", nfs => "nfs",
        photon_persistent_disk => "photonPersistentDisk", portworx_volume => "portworxVolume",
        quobyte => "quobyte", rbd => "rbd", scale_io => "scaleIO", storageos => "storageos",
        vsphere_volume => "vsphereVolume",
    };
    let present = all.into_iter().filter(|(is_present, _)| *is_present);
    present.map(|(_, name)| name).collect()
}

fn validate(volume: &PersistentVolume, errors: &mut FieldErrors) {
    let path = Path::root("spec");
    let Some(spec) = &volume.spec else {
        errors.required(path, "");
        return;
    };
    validate_modes(
        spec.access_modes.as_deref().unwrap_or_default(),
        path.child("accessModes"),
        errors,
    );
    validate_capacity(spec, path.child("capacity"), errors);
    match sources(spec).as_slice() {
        [] => errors.required(path, "must specify a volume type"),
        [_] => {}
        [_, further @ ..] => {
            for source in further {
                errors.forbidden(path.child(source), "may not specify more than 1 volume type");
            }
        }
    }
    let policy = spec
        .persistent_volume_reclaim_policy
        .as_deref()
        .unwrap_or_default();
    if !["Retain", "Delete", "Recycle"].contains(&policy) {
        let supported = ["Delete", "Recycle", "Retain"];
        errors.not_supported(path.child("persistentVolumeReclaimPolicy"), policy, &supported);
    }
    let mode = spec.volume_mode.as_deref().unwrap_or_default();
    if !["Filesystem", "Block"].contains(&mode) {
        errors.not_supported(path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    validate_place(spec, path, errors);
}

fn validate_capacity(spec: &PersistentVolumeSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let Some(amount) = spec
        .capacity
        .as_ref()
        .and_then(|capacity| capacity.get("storage"))
    else {
        errors.required(path, "");
        return;
    };
    match Quantity::parse(&amount.0) {
        Ok(parsed) if parsed.value() <= 0 => {
            errors.invalid(path.child("storage"), &amount.0, "must be greater than zero");
        }
        Ok(_) => {}
        Err(problem) => errors.invalid(path.child("storage"), &amount.0, problem.to_string()),
    }
}

fn validate_place(spec: &PersistentVolumeSpec, path: Path<'_>, errors: &mut FieldErrors) {
    if let Some(local) = &spec.local {
        let path = path.child("local");
        if local.path.is_empty() {
            errors.required(path.child("path"), "");
        }
        if local.path.split('/').any(|part| part == "..") {
            errors.invalid(path.child("path"), &local.path, "must not contain '..'");
        }
        let affinity = spec
            .node_affinity
            .as_ref()
            .and_then(|affinity| affinity.required.as_ref());
        if affinity.is_none() {
            errors.required(
                Path::root("metadata").child("annotations"),
                "Local volume requires node affinity",
            );
        }
    }
    if let Some(host_path) = &spec.host_path {
        let path = path.child("hostPath");
        let path = path.child("path");
        if host_path.path.is_empty() {
            errors.required(path, "");
        }
        if host_path.path.split('/').any(|part| part == "..") {
            errors.invalid(path, &host_path.path, "must not contain '..'");
        }
    }
}

fn validate_update(new: &PersistentVolume, old: &PersistentVolume, errors: &mut FieldErrors) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    let path = Path::root("spec");
    let source = |spec: &PersistentVolumeSpec| PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    };
    if source(new) != source(old) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.forbidden(path.child("persistentvolumesource"), detail);
    }
    if new.volume_mode != old.volume_mode {
        errors.invalid(
            path.child("volumeMode"),
            new.volume_mode.as_deref().unwrap_or_default(),
            "field is immutable",
        );
    }
    if old.node_affinity.is_some() && new.node_affinity != old.node_affinity {
        let detail = "field is immutable, except for updating from beta label to GA";
        errors.forbidden(path.child("nodeAffinity"), detail);
    }
}

fn cells(volume: &PersistentVolume, now: Timestamp) -> Vec<Value> {
    let none = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&none);
    let status = volume.status.as_ref();
    let capacity = spec
        .capacity
        .as_ref()
        .and_then(|capacity| capacity.get("storage"));
    let claim = spec.claim_ref.as_ref().map(|claim| {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{}/{}", part(&claim.namespace), part(&claim.name))
    });
    let phase = match volume.metadata.deletion_timestamp {
        Some(_) => Some("Terminating".to_owned()),
        None => status.and_then(|status| status.phase.clone()),
    };
    vec![
        name_cell(&volume.metadata),
        capacity.map(|amount| amount.0.clone()).unwrap_or_default().into(),
        access_modes(spec.access_modes.as_deref()).into(),
        spec.persistent_volume_reclaim_policy
            .clone()
            .unwrap_or_default()
            .into(),
        phase.unwrap_or_default().into(),
        claim.unwrap_or_default().into(),
        spec.storage_class_name.clone().unwrap_or_default().into(),
        spec.volume_attributes_class_name
            .clone()
            .unwrap_or_else(|| "<unset>".to_owned())
            .into(),
        status
            .and_then(|status| status.reason.clone())
            .unwrap_or_default()
            .into(),
        age_cell(&volume.metadata, now),
        volume_mode_name(spec.volume_mode.as_deref()).into(),
    ]
}
