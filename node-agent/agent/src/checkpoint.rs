//! One file per pod: what it should be, and what has happened to it.
//!
//! *Guarantees*: an agent that was killed at any moment reads either the old or the new content. After a power cut a
//! file may be older or missing; the control plane then says again what should run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flotilla_lifecycle::{History, References};
use flotilla_report::report;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, PodStatus, Secret,
};
use serde::{Deserialize, Serialize};

/// Everything about one pod that outlives the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) pod: Pod,
    pub(crate) config_maps: BTreeMap<String, ConfigMap>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, PersistentVolumeClaim>,
    #[serde(default)]
    pub(crate) volumes: BTreeMap<String, PersistentVolume>,
    pub(crate) history: History,
    pub(crate) status: PodStatus,
}

impl Checkpoint {
    pub(crate) fn references(&self) -> References {
        References {
            config_maps: self.config_maps.clone(),
            secrets: self.secrets.clone(),
            claims: self.claims.clone(),
            volumes: self.volumes.clone(),
        }
    }

    /// Takes over what the pod refers to now.
    pub(crate) fn refer_to(&mut self, references: References) {
        let References {
            config_maps,
            secrets,
            claims,
            volumes,
        } = references;
        (self.config_maps, self.secrets) = (config_maps, secrets);
        (self.claims, self.volumes) = (claims, volumes);
    }
}

/// Why a checkpoint could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub(crate) struct CheckpointError {
    path: PathBuf,
    source: io::Error,
}

/// The folder of all checkpoints.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    pub(crate) fn open(folder: PathBuf) -> Result<Self, CheckpointError> {
        fs::create_dir_all(&folder).map_err(|source| CheckpointError {
            path: folder.clone(),
            source,
        })?;
        Ok(Self { folder })
    }

    /// All pods; a file that cannot be read is logged and left out.
    pub(crate) fn load(&self) -> BTreeMap<String, Checkpoint> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return BTreeMap::new();
        };
        let paths = entries.flatten().map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(read)
            .collect()
    }

    pub(crate) fn save(&self, uid: &str, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let path = self.path(uid);
        let wrap = |source| CheckpointError {
            path: path.clone(),
            source,
        };
        let json = serde_json::to_vec(checkpoint).map_err(|error| wrap(error.into()))?;
        write_private(&path, &json).map_err(wrap)
    }

    pub(crate) fn remove(&self, uid: &str) -> Result<(), CheckpointError> {
        let path = self.path(uid);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CheckpointError { path, source }),
            _ => Ok(()),
        }
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.folder.join(format!("{uid}.json"))
    }
}

/// Writes a file that only root may read (pods carry secrets), whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&temporary, path)
}

fn read(path: PathBuf) -> Option<(String, Checkpoint)> {
    let content = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Checkpoint>(&bytes)?));
    match content {
        Ok(checkpoint) => Some((checkpoint.pod.metadata.uid.clone()?, checkpoint)),
        Err(source) => {
            let error = CheckpointError { path, source };
            tracing::warn!(error = report(&error), "a pod's checkpoint cannot be read");
            None
        }
    }
}
