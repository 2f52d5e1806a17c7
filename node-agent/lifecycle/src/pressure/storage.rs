//! Pods that fill more of the node's disk than they may: kubelet's limits of local storage.

use std::collections::BTreeMap;

use flotilla_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::ranking::is_critical;

const RESOURCE: &str = "ephemeral-storage";

/// What a pod fills of the node's disk, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageUse {
    /// Writable layers and logs, by the container's name.
    pub containers: BTreeMap<String, i64>,
    /// Volumes that count themselves or are counted, by name.
    pub volumes: BTreeMap<String, i64>,
    /// All that is on the disk: containers, empty folders, the pod's own files.
    pub whole: i64,
}

/// Whether the pod has a limit that only counting can keep. Those of folders in memory are kept by the kernel.
pub fn has_storage_limit(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    sizes(spec).next().is_some() || containers(spec).any(|container| limit(container).is_some())
}

/// Kubelet's message for a pod that has passed one of its limits; nothing for one that keeps them, or that the node
/// cannot do without.
pub fn over_storage_limit(pod: &Pod, used: &StorageUse) -> Option<String> {
    let spec = pod.spec.as_ref().filter(|_| !is_critical(pod))?;
    let exceeds = |used: i64, limit: Quantity| used > limit.value();
    let of = |used: &BTreeMap<String, i64>, name: &str| used.get(name).copied().unwrap_or(0);
    let mut folders = sizes(spec).filter(|(name, size)| exceeds(of(&used.volumes, name), *size));
    if let Some((name, size)) = folders.next() {
        return Some(format!(
            "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{size}\". "
        ));
    }
    if let Some(total) = total(spec).filter(|total| exceeds(used.whole, *total)) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
        ));
    }
    let mut containers = containers(spec).filter_map(|container| Some((&container.name, limit(container)?)));
    let (name, limit) = containers.find(|(name, limit)| exceeds(of(&used.containers, name), *limit))?;
    Some(format!(
        "Container {name} exceeded its local ephemeral storage limit \"{limit}\". "
    ))
}

/// The limits of empty folders on disk.
fn sizes(spec: &PodSpec) -> impl Iterator<Item = (&str, Quantity)> {
    spec.volumes.iter().flatten().filter_map(|volume| {
        let folder = volume.empty_dir.as_ref()?;
        let is_disk = folder.medium.as_deref().unwrap_or_default().is_empty();
        let size = folder.size_limit.as_ref().and_then(Quantity::of)?;
        (is_disk && size > Quantity::ZERO).then_some((volume.name.as_str(), size))
    })
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
}

fn limit(container: &Container) -> Option<Quantity> {
    let limits = container.resources.as_ref()?.limits.as_ref();
    Quantity::get(limits, RESOURCE).filter(|limit| *limit > Quantity::ZERO)
}

/// What all containers together may fill. Kubernetes counts one without a limit as nothing, so that it lives off what
/// the others leave; init containers take their turn before.
fn total(spec: &PodSpec) -> Option<Quantity> {
    if containers(spec).all(|container| limit(container).is_none()) {
        return None;
    }
    let (mut lasting, mut peak) = (Quantity::ZERO, Quantity::ZERO);
    for container in spec.init_containers.iter().flatten() {
        let own = limit(container).unwrap_or(Quantity::ZERO);
        let is_lasting = container.restart_policy.as_deref() == Some("Always");
        peak = peak.max(lasting + own);
        if is_lasting {
            lasting += own;
        }
    }
    let main: Quantity = spec.containers.iter().filter_map(limit).sum();
    let overhead = Quantity::get(spec.overhead.as_ref(), RESOURCE).unwrap_or(Quantity::ZERO);
    Some((lasting + main).max(peak) + overhead)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MIB: i64 = 1 << 20;

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn container(name: &str, limit: &str) -> Value {
        json!({"name": name, "resources": {"limits": {"ephemeral-storage": limit}}})
    }

    fn told(pod: &Pod, containers: &[(&str, i64)], volumes: &[(&str, i64)], whole: i64) -> String {
        let map = |list: &[(&str, i64)]| {
            let bytes = |(name, mebibytes): &(&str, i64)| ((*name).to_owned(), mebibytes * MIB);
            list.iter().map(bytes).collect()
        };
        let used = StorageUse {
            containers: map(containers),
            volumes: map(volumes),
            whole: whole * MIB,
        };
        over_storage_limit(pod, &used).unwrap_or_default()
    }

    #[test]
    fn a_folder_that_holds_more_than_it_may_ends_the_pod() {
        let pod = pod(&json!({"containers": [{"name": "a"}], "volumes": [
            {"name": "free", "emptyDir": {}},
            {"name": "none", "emptyDir": {"sizeLimit": "0"}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "cache", "emptyDir": {"sizeLimit": "10240Ki"}}]}));
        assert!(has_storage_limit(&pod));
        let others = [("free", 99), ("none", 99), ("memory", 99)];
        assert_eq!(told(&pod, &[], &others, 99), "");
        assert_eq!(told(&pod, &[], &[("cache", 10)], 99), "");
        assert_eq!(
            told(&pod, &[], &[("cache", 11)], 99),
            "Usage of EmptyDir volume \"cache\" exceeds the limit \"10Mi\". "
        );
    }

    #[test]
    fn containers_and_the_pod_have_limits_of_their_own() {
        let pod =
            pod(&json!({"containers": [container("a", "10Mi"), container("b", "20Mi"), {"name": "c"}]}));
        assert!(has_storage_limit(&pod));
        assert_eq!(told(&pod, &[("a", 10), ("b", 20)], &[], 30), "");
        assert_eq!(
            told(&pod, &[("a", 11)], &[], 11),
            "Container a exceeded its local ephemeral storage limit \"10Mi\". "
        );
        // Also what has no limit itself counts.
        assert_eq!(
            told(&pod, &[("c", 31)], &[], 31),
            "Pod ephemeral local storage usage exceeds the total limit of containers 30Mi. "
        );
    }

    #[test]
    fn init_containers_take_turns_and_sidecars_stay() {
        let mut sidecar = container("side", "5Mi");
        sidecar["restartPolicy"] = "Always".into();
        let total = |inits: &Value, overhead: &Value| {
            let pod = pod(
                &json!({"containers": [container("a", "10Mi")], "initContainers": inits, "overhead": overhead}),
            );
            total(pod.spec.as_ref().unwrap()).unwrap().to_string()
        };
        assert_eq!(total(&json!([container("i", "4Mi")]), &json!({})), "10Mi");
        assert_eq!(total(&json!([container("i", "40Mi")]), &json!({})), "40Mi");
        assert_eq!(
            total(&json!([sidecar, container("i", "8Mi")]), &json!({})),
            "15Mi"
        );
        assert_eq!(total(&json!([]), &json!({"ephemeral-storage": "1Mi"})), "11Mi");
    }

    #[test]
    fn pods_without_limits_are_not_counted_and_critical_ones_not_evicted() {
        let free = pod(&json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}));
        assert!(!has_storage_limit(&free));
        assert_eq!(told(&free, &[("a", 999)], &[("v", 999)], 1998), "");
        let critical = pod(&json!({"priority": 2_000_000_000, "containers": [container("a", "1Mi")]}));
        assert_eq!(told(&critical, &[("a", 9)], &[], 9), "");
    }
}
