//! What is wrong with a pod's volumes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{KeyToPath, Volume};

use crate::field::{FieldErrors, Path};
use crate::names;

/// The names of the sources that the volume has; exactly one is right.
pub(crate) fn sources(volume: &Volume) -> Vec<&'static str> {
    macro_rules! present {
        ($($field:ident => $name:literal),* $(,)?) => {
            [$((volume.$field.is_some(), $name)),*]
        };
    }
    let all = present! {
        aws_elastic_block_store => "awsElasticBlockStore", azure_disk => "azureDisk", azure_file => "azureFile",
        cephfs => "cephfs", cinder => "cinder", config_map => "configMap", csi => "csi",
        downward_api => "downwardAPI", empty_dir => "emptyDir", ephemeral => "ephemeral", fc => "fc",
        flex_volume => "flexVolume", flocker => "flocker", gce_persistent_disk => "gcePersistentDisk",
        git_repo => "gitRepo", glusterfs => "glusterfs", host_path => "hostPath", image => "image",
        iscsi => "iscsi", nfs => "nfs", persistent_volume_claim => "persistentVolumeClaim",
        photon_persistent_disk => "photonPersistentDisk", portworx_volume => "portworxVolume",
        projected => "projected", quobyte => "quobyte", rbd => "rbd", scale_io => "scaleIO",
        secret => "secret", storageos => "storageos", vsphere_volume => "vsphereVolume",
    };
    all.into_iter()
        .filter(|(is_present, _)| *is_present)
        .map(|(_, name)| name)
        .collect()
}

/// Checks the volumes and returns their names, for the mounts.
pub(crate) fn validate<'a>(
    volumes: &'a [Volume],
    path: Path<'_>,
    errors: &mut FieldErrors,
) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let name = path.child("name");
        if volume.name.is_empty() {
            errors.required(name, "");
        } else {
            for problem in names::label(&volume.name) {
                errors.invalid(name, &volume.name, problem);
            }
        }
        if !seen.insert(volume.name.as_str()) {
            errors.duplicate(name, &volume.name);
        }
        match sources(volume).as_slice() {
            [] => errors.required(path, "must specify a volume type"),
            [_] => validate_source(volume, path, errors),
            [_, further @ ..] => {
                for source in further {
                    errors.forbidden(path.child(source), "may not specify more than 1 volume type");
                }
            }
        }
    }
    seen
}

fn validate_source(volume: &Volume, path: Path<'_>, errors: &mut FieldErrors) {
    if let Some(secret) = &volume.secret {
        let path = path.child("secret");
        required(secret.secret_name.as_deref(), path.child("secretName"), errors);
        validate_items(secret.items.as_deref(), path.child("items"), errors);
        validate_mode(secret.default_mode, path.child("defaultMode"), errors);
    }
    if let Some(map) = &volume.config_map {
        let path = path.child("configMap");
        required(Some(&map.name), path.child("name"), errors);
        validate_items(map.items.as_deref(), path.child("items"), errors);
        validate_mode(map.default_mode, path.child("defaultMode"), errors);
    }
    if let Some(host_path) = &volume.host_path {
        let path = path.child("hostPath");
        let path = path.child("path");
        required(Some(&host_path.path), path, errors);
        if host_path.path.split('/').any(|part| part == "..") {
            errors.invalid(path, &host_path.path, "must not contain '..'");
        }
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let path = path.child("persistentVolumeClaim");
        required(Some(&claim.claim_name), path.child("claimName"), errors);
    }
}

fn required(value: Option<&str>, path: Path<'_>, errors: &mut FieldErrors) {
    if value.is_none_or(str::is_empty) {
        errors.required(path, "");
    }
}

fn validate_mode(mode: Option<i32>, path: Path<'_>, errors: &mut FieldErrors) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        errors.invalid(
            path,
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

fn validate_items(items: Option<&[KeyToPath]>, path: Path<'_>, errors: &mut FieldErrors) {
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        required(Some(&item.key), path.child("key"), errors);
        required(Some(&item.path), path.child("path"), errors);
        validate_local_path(&item.path, path.child("path"), errors);
        validate_mode(item.mode, path.child("mode"), errors);
    }
}

/// A path that stays below where it is put.
pub(crate) fn validate_local_path(value: &str, path: Path<'_>, errors: &mut FieldErrors) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    if value.split('/').any(|part| part == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
}
