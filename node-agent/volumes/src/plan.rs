//! What each volume of a pod is to become on this node. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use flotilla_api::claims;
use flotilla_api::quantity::Quantity;
use flotilla_lifecycle::{Facts, Quantities};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, PodSpec, Volume};

use crate::content::{Files, Sources, Tokens};
use crate::host_path::PathKind;
use crate::persistent::{self, Disk, Share};

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// Files that the control plane decides on.
    Files(Files),
    /// An empty folder on the node's disk.
    Folder,
    /// The disk of a persistent volume.
    Disk(Disk),
    /// A file system of another machine.
    Share(Share),
    /// A file system in memory.
    Memory {
        /// The most that it holds; nothing: what the kernel allows.
        bytes: Option<u64>,
    },
    /// Huge pages of this size, such as `2M`; nothing: the kernel's default size.
    HugePages { page_size: Option<String> },
    /// A file or folder of the node.
    Path { path: PathBuf, kind: PathKind },
    /// An image's files.
    Image { reference: String },
}

/// Works out every volume, or says what is in the way of it.
pub(crate) fn plan(facts: &Facts<'_>, tokens: &Tokens) -> Vec<(String, Result<Source, String>)> {
    let sources = Sources { facts, tokens };
    let spec = facts.pod.spec.as_ref();
    let volumes = spec.and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes
        .iter()
        .map(|volume| (volume.name.clone(), source(&sources, volume)))
        .collect()
}

fn source(sources: &Sources<'_>, volume: &Volume) -> Result<Source, String> {
    if let Some(wanted) = &volume.config_map {
        return sources.config_map(wanted).map(Source::Files);
    }
    if let Some(wanted) = &volume.secret {
        return sources.secret(wanted).map(Source::Files);
    }
    if let Some(wanted) = &volume.downward_api {
        return sources.downward(wanted).map(Source::Files);
    }
    if let Some(wanted) = &volume.projected {
        return sources.projected(wanted).map(Source::Files);
    }
    if let Some(wanted) = &volume.empty_dir {
        return empty_dir(sources.facts, wanted);
    }
    if let Some(wanted) = &volume.host_path {
        return Ok(Source::Path {
            path: PathBuf::from(&wanted.path),
            kind: PathKind::parse(wanted.type_.as_deref().unwrap_or_default())?,
        });
    }
    if let Some((claim, made_for_pod)) = claims::claim_of(sources.facts.pod, volume) {
        return persistent::source(sources.facts.pod, sources.facts.references, &claim, made_for_pod);
    }
    if let Some(wanted) = &volume.nfs {
        return Ok(Source::Share(Share {
            server: wanted.server.clone(),
            path: wanted.path.clone(),
            read_only: wanted.read_only == Some(true),
            options: Vec::new(),
        }));
    }
    if let Some(wanted) = &volume.image {
        let reference = wanted.reference.clone().unwrap_or_default();
        return Ok(Source::Image { reference });
    }
    Err("no volume plugin matched: this node knows configMap, secret, downwardAPI, projected, emptyDir, hostPath, \
         image, persistentVolumeClaim and ephemeral volumes"
        .to_owned())
}

fn empty_dir(facts: &Facts<'_>, wanted: &EmptyDirVolumeSource) -> Result<Source, String> {
    let limit = wanted.size_limit.as_ref().and_then(Quantity::of);
    match wanted.medium.as_deref().unwrap_or_default() {
        "" => Ok(Source::Folder),
        "Memory" => Ok(Source::Memory {
            bytes: memory_bytes(facts.pod, limit, facts.allocatable),
        }),
        "HugePages" => Ok(Source::HugePages { page_size: None }),
        medium => match medium.strip_prefix("HugePages-") {
            // The kernel counts in powers of two and writes `2M` for what Kubernetes calls `2Mi`.
            Some(size) => Ok(Source::HugePages {
                page_size: Some(size.trim_end_matches('i').to_owned()),
            }),
            None => Err(format!("unknown storage medium \"{medium}\"")),
        },
    }
}

/// The smallest of the volume's limit, the pod's limit of memory (where every container has one), and what the node
/// has for pods.
fn memory_bytes(pod: &Pod, limit: Option<Quantity>, allocatable: &Quantities) -> Option<u64> {
    let node = allocatable.get("memory").and_then(Quantity::of);
    let pod = pod.spec.as_ref().and_then(pod_memory);
    let limit = limit.map(Quantity::value).filter(|bytes| *bytes > 0);
    let all = [limit, pod, node.map(Quantity::value)];
    let least = all.into_iter().flatten().min()?;
    u64::try_from(least).ok()
}

fn pod_memory(spec: &PodSpec) -> Option<i64> {
    let limits = spec.containers.iter().map(|container| {
        let resources = container.resources.as_ref()?;
        let limit = Quantity::get(resources.limits.as_ref(), "memory").map(Quantity::value);
        limit.filter(|bytes| *bytes > 0)
    });
    limits.sum()
}

/// The images that the pod's volumes show, by the volume's name: reference and pull policy.
pub fn images_wanted(pod: &Pod) -> BTreeMap<String, (String, Option<String>)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let images = volumes.filter_map(|volume| {
        let image = volume.image.as_ref()?;
        let reference = image.reference.clone().unwrap_or_default();
        Some((volume.name.clone(), (reference, image.pull_policy.clone())))
    });
    images.collect()
}

#[cfg(test)]
mod tests;
