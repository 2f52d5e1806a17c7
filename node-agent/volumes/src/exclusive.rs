//! Volumes that one pod at a time may use (`ReadWriteOncePod`), and volumes that are not on this node.
//!
//! The scheduler sees to both; a pod that names its node itself gets past it. Who uses a volume is noted by a file in
//! the pod's own folder in memory, so the note ends with what is mounted there.

use std::fs;
use std::io;
use std::path::Path;

use flotilla_api::claims;
use flotilla_lifecycle::References;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, Pod};

use crate::volumes::entries;

/// No volume of a pod can have this name.
const NOTES: &str = ".alone";
const HOST_NAME: &str = "kubernetes.io/hostname";

/// Whether the pod may have the volume on this node, in kubelet's words if not. Asking again is harmless; two pods must
/// not ask at the same time.
pub(crate) fn admit(run_dir: &Path, pod: &Pod, references: &References, volume: &str) -> Result<(), String> {
    let Some(volume) = persistent_volume(pod, references, volume) else {
        return Ok(());
    };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let node = pod
        .spec
        .as_ref()
        .map(|spec| text(&spec.node_name))
        .unwrap_or_default();
    if !may_be_on(volume, &node) {
        return Err("no matching NodeSelectorTerms: the volume is not on this node".to_owned());
    }
    if !is_for_one_pod(volume) {
        return Ok(());
    }
    let (name, uid) = (text(&volume.metadata.name), text(&pod.metadata.uid));
    let taken = take(run_dir, &uid, &name).map_err(|error| format!("cannot note who uses it: {error}"))?;
    match taken {
        true => Ok(()),
        false => Err(
            "volume uses the ReadWriteOncePod access mode and is already in use by another pod".to_owned(),
        ),
    }
}

fn persistent_volume<'a>(
    pod: &Pod,
    references: &'a References,
    volume: &str,
) -> Option<&'a PersistentVolume> {
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let volume = volumes.find(|known| known.name == volume)?;
    let (claim, _) = claims::claim_of(pod, volume)?;
    let name = references.claims.get(&claim).and_then(claims::volume_name)?;
    references.volumes.get(name)
}

/// Where there are other modes besides, nobody knows which of them the pod means.
fn is_for_one_pod(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    matches!(modes, Some([mode]) if mode == "ReadWriteOncePod")
}

/// False where it is certain that the volume cannot be used on the node: labels are the control plane's to know, but a
/// node's name is no secret.
fn may_be_on(volume: &PersistentVolume, node: &str) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else {
        return true;
    };
    let other = |requirement: &NodeSelectorRequirement| {
        let values = requirement.values.as_deref().unwrap_or_default();
        requirement.operator == "In" && !values.iter().any(|value| value == node)
    };
    let is_refused = |term: &NodeSelectorTerm| {
        let mut labels = term.match_expressions.iter().flatten();
        let mut fields = term.match_fields.iter().flatten();
        labels.any(|wanted| wanted.key == HOST_NAME && other(wanted))
            || fields.any(|wanted| wanted.key == "metadata.name" && other(wanted))
    };
    !required.node_selector_terms.iter().all(is_refused)
}

fn take(run_dir: &Path, uid: &str, volume: &str) -> io::Result<bool> {
    let own = run_dir.join(uid);
    for other in entries(run_dir)? {
        if other != own && other.join(NOTES).join(volume).try_exists()? {
            return Ok(false);
        }
    }
    let notes = own.join(NOTES);
    fs::create_dir_all(&notes)?;
    fs::write(notes.join(volume), "")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, node: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "d", "uid": uid},
            "spec": {"nodeName": node, "containers": [],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]}}))
        .unwrap()
    }

    fn references(modes: &Value, terms: &Value) -> References {
        let claim = json!({"metadata": {"name": "c"}, "spec": {"volumeName": "pv"}});
        let volume = json!({"metadata": {"name": "pv"}, "spec": {"accessModes": modes,
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}});
        References {
            claims: [("c".to_owned(), serde_json::from_value(claim).unwrap())].into(),
            volumes: [("pv".to_owned(), serde_json::from_value(volume).unwrap())].into(),
            ..References::default()
        }
    }

    fn on(key: &str, values: &[&str]) -> Value {
        json!([{"matchExpressions": [{"key": key, "operator": "In", "values": values}]}])
    }

    #[test]
    fn one_pod_has_it_until_its_folder_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let alone = references(&json!(["ReadWriteOncePod"]), &on(HOST_NAME, &["a"]));
        let ask = |uid, references| admit(folder.path(), &pod(uid, "a"), references, "data");
        assert_eq!(ask("one", &alone), Ok(()));
        assert_eq!(ask("one", &alone), Ok(()));
        let refused = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";
        assert_eq!(ask("two", &alone), Err(refused.to_owned()));
        let shared = references(&json!(["ReadWriteOnce"]), &on(HOST_NAME, &["a"]));
        assert_eq!(ask("two", &shared), Ok(()));
        fs::remove_dir_all(folder.path().join("one")).unwrap();
        assert_eq!(ask("two", &alone), Ok(()));
    }

    #[test]
    fn a_volume_of_another_node_is_not_had_here() {
        let folder = tempfile::tempdir().unwrap();
        let check = |terms: &Value, expected: bool| {
            let references = references(&json!(["ReadWriteOnce"]), terms);
            let found = admit(folder.path(), &pod("one", "a"), &references, "data");
            assert_eq!(found.is_ok(), expected, "{terms}: {found:?}");
        };
        check(&on(HOST_NAME, &["a", "b"]), true);
        check(&on(HOST_NAME, &["b"]), false);
        check(&on("zone", &["b"]), true);
        let mut either = on(HOST_NAME, &["b"]);
        either
            .as_array_mut()
            .unwrap()
            .extend(on("zone", &["z"]).as_array().unwrap().clone());
        check(&either, true);
        let named = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]);
        check(&named, false);
    }
}
