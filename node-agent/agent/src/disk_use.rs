//! What of the node's disk each pod fills, counted no more often than it is worth.
//!
//! Counting walks over all of a pod's files, so what was counted is kept, and a pod with very many files is counted
//! less often than others: of the time, at most one part in twenty goes into it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_lifecycle::References;
use flotilla_lifecycle::pressure::StorageUse;
use flotilla_report::report;
use flotilla_volumes::{DiskUsage, PlaceKind, VolumePlace, disk_usage};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gauges::{Disk, disk};
use crate::machine::Machine;

/// A pod is left in peace for so many times as long as it took to count it.
const REST: u32 = 20;

/// Where pods leave files beside their volumes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folders {
    /// Writable layers: a folder per pod with one per run of a container.
    pub(crate) layers: PathBuf,
    /// Logs: a folder per pod with one per container.
    pub(crate) logs: PathBuf,
    /// Files that the agent makes for a pod.
    pub(crate) files: PathBuf,
}

impl Folders {
    /// Those of an agent with this data folder.
    pub(crate) fn below(data_dir: &Path) -> Self {
        Self {
            layers: data_dir.join("runtime"),
            logs: data_dir.join("pods"),
            files: data_dir.join("etc"),
        }
    }
}

/// What a pod fills.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PodDisk {
    /// By the container's name.
    pub(crate) layers: BTreeMap<String, DiskUsage>,
    /// By the container's name.
    pub(crate) logs: BTreeMap<String, DiskUsage>,
    pub(crate) files: DiskUsage,
    pub(crate) volumes: Vec<VolumeDisk>,
}

/// What a volume holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VolumeDisk {
    pub(crate) place: VolumePlace,
    /// The file system on which it is.
    pub(crate) disk: Disk,
    pub(crate) usage: DiskUsage,
}

impl PodDisk {
    /// All that is on the node's disk and ends with the pod.
    pub(crate) fn whole(&self) -> DiskUsage {
        let own = self
            .volumes
            .iter()
            .filter(|volume| volume.place.kind == PlaceKind::OnDisk);
        let parts = self.layers.values().chain(self.logs.values()).copied();
        parts
            .chain(own.map(|volume| volume.usage))
            .chain([self.files])
            .sum()
    }

    /// A container's layer and log.
    pub(crate) fn container(&self, name: &str) -> DiskUsage {
        let of = |map: &BTreeMap<String, DiskUsage>| map.get(name).copied();
        [of(&self.layers), of(&self.logs)].into_iter().flatten().sum()
    }

    /// The same, for who compares it with limits.
    pub(crate) fn storage_use(&self) -> StorageUse {
        let bytes = |usage: DiskUsage| i64::try_from(usage.bytes).unwrap_or(i64::MAX);
        let names = self.layers.keys().chain(self.logs.keys());
        let containers = names.map(|name| (name.clone(), bytes(self.container(name))));
        let volumes = self
            .volumes
            .iter()
            .map(|volume| (volume.place.volume.clone(), bytes(volume.usage)));
        StorageUse {
            containers: containers.collect(),
            volumes: volumes.collect(),
            whole: bytes(self.whole()),
        }
    }
}

struct Known {
    at: Instant,
    took: Duration,
    disk: Arc<PodDisk>,
}

/// Counts, and remembers what it counted.
pub(crate) struct DiskUses {
    machine: Arc<dyn Machine>,
    folders: Folders,
    known: Mutex<HashMap<String, Known>>,
    shutdown: CancellationToken,
}

impl DiskUses {
    /// A count that is under way ends early on shutdown.
    pub(crate) fn new(machine: Arc<dyn Machine>, folders: Folders, shutdown: CancellationToken) -> Self {
        Self {
            machine,
            folders,
            known: Mutex::default(),
            shutdown,
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the pod fills, as it was at most `age` ago; longer where counting takes long. Blocks.
    pub(crate) fn of(&self, pod: &Pod, references: &References, age: Duration) -> Arc<PodDisk> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if let Some(known) = self.known().get(&uid)
            && known.at.elapsed() < age.max(known.took * REST)
        {
            return known.disk.clone();
        }
        let began = Instant::now();
        let disk = Arc::new(self.count(pod, references));
        let known = Known {
            at: Instant::now(),
            took: began.elapsed(),
            disk: disk.clone(),
        };
        self.known().insert(uid, known);
        disk
    }

    /// Forgets all pods but these.
    pub(crate) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.known().retain(|uid, _| is_there(uid));
    }

    fn count(&self, pod: &Pod, references: &References) -> PodDisk {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let places = self.machine.measurable_volumes(pod, references);
        PodDisk {
            layers: self.layers(&self.folders.layers.join(uid)),
            logs: self.logs(&self.folders.logs.join(log_folder(pod))),
            files: self.usage(&self.folders.files.join(uid)),
            volumes: places
                .into_iter()
                .filter_map(|place| self.volume(place))
                .collect(),
        }
    }

    fn layers(&self, folder: &Path) -> BTreeMap<String, DiskUsage> {
        let mut layers: BTreeMap<String, DiskUsage> = BTreeMap::new();
        for id in names(folder) {
            // The runtime names runs `<container>-<attempt>`.
            let Some((container, _)) = id.rsplit_once('-') else {
                continue;
            };
            let usage = self.usage(&folder.join(&id).join("upper"));
            *layers.entry(container.to_owned()).or_default() += usage;
        }
        layers
    }

    fn logs(&self, folder: &Path) -> BTreeMap<String, DiskUsage> {
        let of = |name: String| {
            let usage = self.usage(&folder.join(&name));
            (name, usage)
        };
        names(folder).into_iter().map(of).collect()
    }

    fn volume(&self, place: VolumePlace) -> Option<VolumeDisk> {
        let disk = disk(&place.path)?;
        let usage = match place.kind {
            PlaceKind::OnDisk | PlaceKind::Files => self.usage(&place.path),
            PlaceKind::FileSystem => DiskUsage {
                bytes: disk.capacity_bytes.saturating_sub(disk.free_bytes),
                inodes: disk.inodes.saturating_sub(disk.inodes_free),
            },
        };
        Some(VolumeDisk { place, disk, usage })
    }

    fn usage(&self, folder: &Path) -> DiskUsage {
        let is_over = || self.shutdown.is_cancelled();
        disk_usage(folder, &is_over).unwrap_or_else(|error| {
            let folder = folder.display();
            tracing::debug!(%folder, error = report(&error), "what is in a folder cannot be counted");
            DiskUsage::default()
        })
    }
}

/// The name of the folder of a pod's logs.
pub(crate) fn log_folder(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!(
        "{}_{}_{}",
        part(&meta.namespace),
        part(&meta.name),
        part(&meta.uid)
    )
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::FakeMachine;

    fn fill(path: &Path, kibibytes: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![1; kibibytes << 10]).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn layers_logs_files_and_folders_are_counted_once_in_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let machine = FakeMachine::new();
        let place = |name: &str, kind| VolumePlace {
            volume: name.to_owned(),
            claim: None,
            path: at(&format!("volumes/{name}")),
            kind,
        };
        machine.show_volumes(vec![
            place("scratch", PlaceKind::OnDisk),
            place("settings", PlaceKind::Files),
            place("missing", PlaceKind::OnDisk),
        ]);
        let folders = Folders {
            layers: at("layers"),
            logs: at("logs"),
            files: at("files"),
        };
        let uses = DiskUses::new(machine, folders, CancellationToken::new());
        fill(&at("layers/u/web-0/upper/big"), 100);
        fill(&at("layers/u/web-1/upper/big"), 50);
        fill(&at("layers/u/web-1/work/hidden"), 900);
        fill(&at("layers/other/web-0/upper/big"), 900);
        fill(&at("logs/d_p_u/web/0.log"), 30);
        fill(&at("files/u/hosts"), 4);
        fill(&at("volumes/scratch/data"), 200);
        fill(&at("volumes/settings/data"), 900);
        let pod: Pod =
            serde_json::from_str(r#"{"metadata":{"name":"p","namespace":"d","uid":"u"}}"#).unwrap();
        let look = |seconds| {
            let found = uses.of(&pod, &References::default(), Duration::from_secs(seconds));
            let used = found.storage_use();
            // Folders themselves take a little, how much depends on the file system.
            let kib = |bytes: i64| bytes >> 10;
            let near = move |bytes: i64, least: i64| (least..least + 60).contains(&kib(bytes));
            (used, near)
        };
        let (used, near) = look(60);
        assert!(near(used.containers["web"], 180), "{used:?}");
        assert!(near(used.volumes["scratch"], 200), "{used:?}");
        assert!(near(used.volumes["settings"], 900), "{used:?}");
        assert!(!used.volumes.contains_key("missing"));
        assert!(near(used.whole, 384), "{used:?}");

        fill(&at("volumes/scratch/more"), 200);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(near(look(60).0.volumes["scratch"], 200));
        assert!(near(look(30).0.volumes["scratch"], 400));
        fill(&at("volumes/scratch/yet-more"), 200);
        uses.retain(|uid| uid != "u");
        assert!(near(look(60).0.volumes["scratch"], 600));
    }
}
