//! What a claim of a pod stands for on this node. Pure.

use std::path::PathBuf;

use flotilla_api::{LOCAL_PROVISIONER, claims};
use flotilla_lifecycle::References;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod};

use crate::host_path::PathKind;
use crate::plan::Source;

/// The disk of a persistent volume of the local class: a file system in a file of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Names the file; the volume's handle.
    pub name: String,
    /// How much it is to hold.
    pub bytes: u64,
    /// It has been made before: if it is missing, it is lost.
    pub is_made: bool,
    /// Options for mounting it.
    pub options: Vec<String>,
}

/// A file system of another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) server: String,
    pub(crate) path: String,
    pub(crate) read_only: bool,
    pub(crate) options: Vec<String>,
}

/// What is to be mounted for a claim, or what is in the way, in kubelet's words.
pub(crate) fn source(
    pod: &Pod,
    references: &References,
    name: &str,
    made_for_pod: bool,
) -> Result<Source, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let processing = |problem: &str| Err(format!("error processing PVC {namespace}/{name}: {problem}"));
    let Some(claim) = references.claims.get(name) else {
        return processing(&format!(
            "failed to fetch PVC from API server: persistentvolumeclaims \"{name}\" not found"
        ));
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return processing("PVC is being deleted");
    }
    if made_for_pod && !claims::is_made_for(claim, pod) {
        return processing("PVC was not created for pod (pod is not owner)");
    }
    if !claims::is_bound(claim) {
        return processing("PVC is not bound");
    }
    let volume = claims::volume_name(claim).and_then(|volume| references.volumes.get(volume));
    match volume.filter(|volume| claims::is_reserved_for(volume, claim)) {
        Some(volume) => of_volume(claim, volume),
        None => processing("PVC's volume is not bound to it yet"),
    }
}

fn of_volume(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<Source, String> {
    let none = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&none);
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let wanted = claim.spec.as_ref().map(|spec| mode(&spec.volume_mode));
    if mode(&spec.volume_mode) == "Block" || wanted.as_deref() == Some("Block") {
        return Err("volumes of volumeMode Block are not supported by this node: use Filesystem".to_owned());
    }
    if let Some(path) = &spec.host_path {
        let kind = PathKind::parse(path.type_.as_deref().unwrap_or_default())?;
        return Ok(Source::Path {
            path: PathBuf::from(&path.path),
            kind,
        });
    }
    if let Some(local) = &spec.local {
        // Made by hand, so one that is missing is a mistake.
        return Ok(Source::Path {
            path: PathBuf::from(&local.path),
            kind: PathKind::Directory,
        });
    }
    if let Some(nfs) = &spec.nfs {
        return Ok(Source::Share(Share {
            server: nfs.server.clone(),
            path: nfs.path.clone(),
            read_only: nfs.read_only == Some(true),
            options: spec.mount_options.clone().unwrap_or_default(),
        }));
    }
    match disk(volume) {
        Some(disk) => Ok(Source::Disk(disk)),
        None => Err(
            "no volume plugin matched: this node knows hostPath, local, nfs and the volumes of its own \
                     provisioner local.flotilla.dev"
                .to_owned(),
        ),
    }
}

/// The disk behind a volume of the local class.
pub fn disk(volume: &PersistentVolume) -> Option<Disk> {
    let spec = volume.spec.as_ref()?;
    let source = spec.csi.as_ref().filter(|csi| csi.driver == LOCAL_PROVISIONER)?;
    let annotations = volume.metadata.annotations.as_ref();
    let is_made = annotations.is_some_and(|annotations| annotations.contains_key(claims::DISK_MADE));
    Some(Disk {
        name: source.volume_handle.clone(),
        bytes: u64::try_from(claims::capacity_bytes(volume)).ok()?,
        is_made,
        options: spec.mount_options.clone().unwrap_or_default(),
    })
}

/// What a node has to do about one of its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// The volume goes: remove the disk, unless its policy is to keep it, and let the volume go.
    Release {
        /// Remove what is on it.
        remove: bool,
    },
    /// Let it hold so much.
    Grow {
        /// How much.
        bytes: u64,
    },
    /// Tell that it has been made.
    TellMade,
}

/// What node `node`, on which the disk's file has `present` bytes, has to do about the volume now.
pub fn duty(volume: &PersistentVolume, node: &str, present: Option<u64>) -> Option<Duty> {
    let disk = disk(volume)?;
    let annotations = volume.metadata.annotations.as_ref()?;
    if annotations.get(claims::DISK_NODE).map(String::as_str) != Some(node) {
        return None;
    }
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let finalizers = volume.metadata.finalizers.as_deref().unwrap_or_default();
    let holds = finalizers
        .iter()
        .any(|finalizer| finalizer == claims::DISK_FINALIZER);
    if volume.metadata.deletion_timestamp.is_some() {
        let policy = volume.spec.as_ref()?.persistent_volume_reclaim_policy.as_deref();
        let remove = policy == Some("Delete");
        return (phase != Some("Bound") && holds).then_some(Duty::Release { remove });
    }
    match present {
        Some(bytes) if bytes < disk.bytes => Some(Duty::Grow { bytes: disk.bytes }),
        Some(_) if !disk.is_made => Some(Duty::TellMade),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn volume(extra: &Value) -> PersistentVolume {
        let mut all = json!({"metadata": {"name": "pv", "finalizers": ["local.flotilla.dev/disk"],
                "annotations": {"local.flotilla.dev/node": "a", "local.flotilla.dev/made": "true"}},
            "spec": {"capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": "default", "name": "data", "uid": "u"},
                "csi": {"driver": "local.flotilla.dev", "volumeHandle": "pv"}}, "status": {"phase": "Bound"}});
        for (section, fields) in extra.as_object().unwrap() {
            let fields = fields.as_object().unwrap().clone();
            all[section].as_object_mut().unwrap().extend(fields);
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_node_gives_back_and_grows_its_own_disks() {
        let check = |extra: Value, node: &str, present: Option<u64>, expected: &Expect| {
            expected.assert_eq(&format!("{:?}", duty(&volume(&extra), node, present)));
        };
        const GIB: u64 = 1 << 30;
        check(json!({}), "a", Some(GIB), &expect!["None"]);
        check(json!({}), "b", Some(0), &expect!["None"]);
        check(json!({}), "a", None, &expect!["None"]);
        check(
            json!({"spec": {"capacity": {"storage": "2Gi"}}}),
            "a",
            Some(GIB),
            &expect!["Some(Grow { bytes: 2147483648 })"],
        );
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        check(going.clone(), "a", Some(GIB), &expect!["None"]);
        let mut released = going;
        released["status"] = json!({"phase": "Released"});
        check(
            released.clone(),
            "a",
            Some(GIB),
            &expect!["Some(Release { remove: true })"],
        );
        released["spec"] = json!({"persistentVolumeReclaimPolicy": "Retain"});
        check(
            released,
            "a",
            Some(GIB),
            &expect!["Some(Release { remove: false })"],
        );
        let new = json!({"metadata": {"annotations": {"local.flotilla.dev/node": "a"}}});
        check(new, "a", Some(GIB), &expect!["Some(TellMade)"]);
    }

    #[test]
    fn a_claim_that_cannot_be_mounted_says_why() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "default"}})).unwrap();
        let claim = |status: Value| -> PersistentVolumeClaim {
            serde_json::from_value(
                json!({"metadata": {"name": "data", "namespace": "default", "uid": "u"},
                "spec": {"volumeName": "pv"}, "status": status}),
            )
            .unwrap()
        };
        let check =
            |claim: Option<PersistentVolumeClaim>, volume: Option<PersistentVolume>, expected: &Expect| {
                let references = References {
                    claims: claim
                        .into_iter()
                        .map(|claim| ("data".to_owned(), claim))
                        .collect(),
                    volumes: volume
                        .into_iter()
                        .map(|volume| ("pv".to_owned(), volume))
                        .collect(),
                    ..References::default()
                };
                let found = source(&pod, &references, "data", false);
                expected.assert_eq(&match found {
                    Ok(source) => format!("{source:?}"),
                    Err(problem) => problem,
                });
            };
        let bound = json!({"phase": "Bound"});
        check(
            None,
            None,
            &expect![[
                r#"error processing PVC default/data: failed to fetch PVC from API server: persistentvolumeclaims "data" not found"#
            ]],
        );
        check(
            Some(claim(json!({"phase": "Pending"}))),
            None,
            &expect!["error processing PVC default/data: PVC is not bound"],
        );
        check(
            Some(claim(bound.clone())),
            None,
            &expect!["error processing PVC default/data: PVC's volume is not bound to it yet"],
        );
        check(
            Some(claim(bound)),
            Some(volume(&json!({}))),
            &expect![[r#"Disk(Disk { name: "pv", bytes: 1073741824, is_made: true, options: [] })"#]],
        );
    }
}
