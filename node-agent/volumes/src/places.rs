//! Where the files of a pod's volumes are, for whoever counts them. Pure.

use std::path::PathBuf;

use flotilla_api::claims;
use flotilla_lifecycle::References;
use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::persistent;
use crate::plan::Source;

/// A volume whose use can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePlace {
    /// The volume's name in its pod.
    pub volume: String,
    /// The claim behind it.
    pub claim: Option<String>,
    /// Its root.
    pub path: PathBuf,
    /// What that is.
    pub kind: PlaceKind,
}

/// How what a volume holds is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceKind {
    /// A folder on the node's disk that lives as long as the pod: its files are the pod's use of the disk.
    OnDisk,
    /// Files in memory that the control plane decides on.
    Files,
    /// A file system of its own, which counts itself.
    FileSystem,
}

/// The volumes of a pod whose use can be told. Left out are those that Kubernetes leaves out as well (folders of the
/// node, images), and shares of other machines: asking about one whose server is away never returns.
pub(crate) fn places(
    pod: &Pod,
    references: &References,
    place: impl Fn(&Volume) -> Option<PathBuf>,
) -> Vec<VolumePlace> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let places = volumes.filter_map(|volume| {
        let claim = claims::claim_of(pod, volume);
        let (kind, other) = match &claim {
            Some((claim, made_for_pod)) => of_claim(pod, references, claim, *made_for_pod)?,
            None => (kind(volume)?, None),
        };
        Some(VolumePlace {
            volume: volume.name.clone(),
            path: other.or_else(|| place(volume))?,
            claim: claim.map(|(claim, _)| claim),
            kind,
        })
    });
    places.collect()
}

fn kind(volume: &Volume) -> Option<PlaceKind> {
    if let Some(folder) = &volume.empty_dir {
        let is_disk = folder.medium.as_deref().unwrap_or_default().is_empty();
        return Some(if is_disk {
            PlaceKind::OnDisk
        } else {
            PlaceKind::FileSystem
        });
    }
    let is_files = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some();
    is_files.then_some(PlaceKind::Files)
}

/// The folder only where it is one of the node's own.
fn of_claim(
    pod: &Pod,
    references: &References,
    claim: &str,
    made_for_pod: bool,
) -> Option<(PlaceKind, Option<PathBuf>)> {
    let volume = references.claims.get(claim).and_then(claims::volume_name);
    let spec = volume.and_then(|volume| references.volumes.get(volume)?.spec.as_ref());
    match persistent::source(pod, references, claim, made_for_pod).ok()? {
        Source::Disk(_) => Some((PlaceKind::FileSystem, None)),
        Source::Path { path, .. } if spec?.local.is_some() => Some((PlaceKind::FileSystem, Some(path))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_holds_a_pods_own_files_is_told_from_what_counts_itself() {
        let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "d"},
        "spec": {"containers": [], "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "settings", "configMap": {"name": "s"}},
            {"name": "token", "projected": {"sources": []}},
            {"name": "node", "hostPath": {"path": "/var"}},
            {"name": "share", "nfs": {"server": "s", "path": "/"}},
            {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}},
            {"name": "hand", "persistentVolumeClaim": {"claimName": "hand"}},
            {"name": "folder", "persistentVolumeClaim": {"claimName": "folder"}},
            {"name": "unbound", "persistentVolumeClaim": {"claimName": "none"}},
        ]}}))
        .unwrap();
        let mut references = References::default();
        for (name, source) in [
            (
                "disk",
                json!({"csi": {"driver": "local.flotilla.dev", "volumeHandle": "h"}}),
            ),
            ("hand", json!({"local": {"path": "/mnt/hand"}})),
            ("folder", json!({"hostPath": {"path": "/srv"}})),
        ] {
            let mut spec =
                json!({"capacity": {"storage": "1Gi"}, "claimRef": {"name": name, "namespace": "d"}});
            spec.as_object_mut()
                .unwrap()
                .extend(source.as_object().unwrap().clone());
            let volume = json!({"metadata": {"name": name}, "spec": spec});
            let claim = json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"volumeName": name},
                "status": {"phase": "Bound"}});
            references
                .volumes
                .insert(name.to_owned(), serde_json::from_value(volume).unwrap());
            references
                .claims
                .insert(name.to_owned(), serde_json::from_value(claim).unwrap());
        }
        let found = places(&pod, &references, |volume| {
            Some(PathBuf::from("/v").join(&volume.name))
        });
        let told: Vec<String> = found
            .iter()
            .map(|place| format!("{} {:?} {}", place.volume, place.kind, place.path.display()))
            .collect();
        assert_eq!(
            told,
            [
                "scratch OnDisk /v/scratch",
                "memory FileSystem /v/memory",
                "settings Files /v/settings",
                "token Files /v/token",
                "disk FileSystem /v/disk",
                "hand FileSystem /mnt/hand",
            ]
        );
        assert_eq!(found[4].claim.as_deref(), Some("disk"));
    }
}
