//! The logs of pods that are gone: kept for an hour, as far as there is room, for whoever asks why they went.
//!
//! *Guarantees*: a folder is moved here whole, with the record that says whose it was, so an agent that is killed at
//! any moment leaves either the pod's folder or a kept one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flotilla_lifecycle::History;
use flotilla_report::report;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::write_private;

/// How long the logs of a pod outlive it.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(1);
/// What all kept logs of a node may take; the oldest go first.
const BYTES_MAX: u64 = 256 << 20;
/// Between looks for logs that are too old.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(60);
const RECORD: &str = "record.json";

/// Whose logs a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) gone_at: Timestamp,
    /// In the pod's order: main containers first.
    pub(crate) containers: Vec<Kept>,
    bytes: u64,
}

/// The logs of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) name: String,
    /// The newest attempt; the one before is kept as well.
    pub(crate) attempt: u32,
}

/// All kept logs of this node, and the index of them.
pub(crate) struct GoneLogs {
    folder: PathBuf,
    records: Mutex<BTreeMap<String, Record>>,
}

impl GoneLogs {
    /// What an earlier agent has kept; a folder without a record is nobody's.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let json = fs::read(entry.path().join(RECORD));
            let record = json
                .ok()
                .and_then(|json| serde_json::from_slice::<Record>(&json).ok());
            match record {
                Some(record) => drop(records.insert(record.uid.clone(), record)),
                None => remove(&entry.path()),
            }
        }
        let records = Mutex::new(records);
        Self { folder, records }
    }

    /// Takes over the logs of a pod that has ended; without any, only the folder goes.
    pub(crate) fn keep(&self, pod: &Pod, history: &History, logs: &Path) {
        let containers = kept(pod, history);
        if containers.is_empty() || !logs.is_dir() {
            return remove(logs);
        }
        match self.take(pod, containers, logs) {
            Ok(record) => {
                self.records().insert(record.uid.clone(), record);
                self.sweep(Timestamp::now());
            }
            Err(error) => {
                tracing::warn!(folder = %logs.display(), error = report(&error), "a pod's logs are not kept");
                remove(logs);
            }
        }
    }

    fn take(&self, pod: &Pod, containers: Vec<Kept>, logs: &Path) -> io::Result<Record> {
        for container in &containers {
            drop_older(&logs.join(&container.name), container.attempt.saturating_sub(1))?;
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let record = Record {
            namespace: text(&pod.metadata.namespace),
            pod: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            gone_at: Timestamp::now(),
            containers,
            bytes: size(logs)?,
        };
        write_private(&logs.join(RECORD), &serde_json::to_vec(&record)?)?;
        fs::create_dir_all(&self.folder)?;
        let kept = self.folder.join(&record.uid);
        // A static pod whose file comes back unchanged has the same uid again.
        remove(&kept);
        fs::rename(logs, kept)?;
        Ok(record)
    }

    /// The kept pods of a namespace, newest first.
    pub(crate) fn find(&self, namespace: &str) -> Vec<Record> {
        let now = Timestamp::now();
        let records = self.records();
        let own = records
            .values()
            .filter(|record| record.namespace == namespace && !is_old(record, now));
        let mut found: Vec<Record> = own.cloned().collect();
        found.sort_by_key(|record| std::cmp::Reverse(record.gone_at));
        found
    }

    /// The folder of a pod's logs, and what is in it.
    pub(crate) fn get(&self, uid: &str) -> Option<(PathBuf, Record)> {
        let record = self.records().get(uid)?.clone();
        Some((self.folder.join(uid), record))
    }

    /// Removes what is too old or too much, until shutdown.
    pub(crate) async fn sweep_forever(&self, shutdown: CancellationToken) {
        loop {
            self.sweep(Timestamp::now());
            // Both arms only wait.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }

    fn sweep(&self, now: Timestamp) {
        let mut records = self.records();
        for uid in surplus(records.values(), now) {
            remove(&self.folder.join(&uid));
            records.remove(&uid);
        }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_old(record: &Record, now: Timestamp) -> bool {
    now.duration_since(record.gone_at) >= KEPT_FOR
}

/// The uids of those that are too old, and of the oldest beyond what there is room for.
fn surplus<'a>(records: impl Iterator<Item = &'a Record>, now: Timestamp) -> Vec<String> {
    let mut all: Vec<&Record> = records.collect();
    all.sort_by_key(|record| std::cmp::Reverse(record.gone_at));
    let mut total = 0_u64;
    let goes = |record: &&&Record| {
        total = total.saturating_add(record.bytes);
        is_old(record, now) || total > BYTES_MAX
    };
    all.iter().filter(goes).map(|record| record.uid.clone()).collect()
}

/// The containers that have run, main ones first.
fn kept(pod: &Pod, history: &History) -> Vec<Kept> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| {
        let main = spec.containers.iter().map(|container| &container.name);
        let init = spec
            .init_containers
            .iter()
            .flatten()
            .map(|container| &container.name);
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        main.chain(init).chain(ephemeral.map(|container| &container.name))
    });
    all.filter_map(|name| {
        let attempt = history.container(name).attempts.checked_sub(1)?;
        let name = name.clone();
        Some(Kept { name, attempt })
    })
    .collect()
}

/// Removes the logs of attempts before `oldest`.
fn drop_older(folder: &Path, oldest: u32) -> io::Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        let attempt = name
            .to_str()
            .and_then(|name| name.split('.').next()?.parse::<u32>().ok());
        if attempt.is_some_and(|attempt| attempt < oldest) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn size(folder: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        total += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(total)
}

fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), error = report(&error), "a pod's logs stay");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: &str, minutes: i64, bytes: u64) -> Record {
        Record {
            namespace: "default".to_owned(),
            pod: "web".to_owned(),
            uid: uid.to_owned(),
            gone_at: Timestamp::from_second(minutes * 60).unwrap(),
            containers: Vec::new(),
            bytes,
        }
    }

    #[test]
    fn what_is_too_old_or_too_much_goes() {
        let now = Timestamp::from_second(100 * 60).unwrap();
        let half = BYTES_MAX / 2;
        let records = [
            record("old", 39, 1),
            record("young", 99, half),
            record("large", 80, half + 1),
            record("small", 70, 1),
        ];
        assert_eq!(surplus(records.iter(), now), ["large", "small", "old"]);
        assert!(surplus([record("last", 41, BYTES_MAX)].iter(), now).is_empty());
    }

    #[test]
    fn the_last_two_runs_of_each_container_are_kept_and_found_by_the_next_agent() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, kept) = (folder.path().join("logs"), folder.path().join("kept"));
        fs::create_dir_all(logs.join("a")).unwrap();
        for file in ["0.log", "0.log.1", "1.log", "2.log", "2.log.1"] {
            fs::write(logs.join("a").join(file), "text").unwrap();
        }
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "default", "name": "web", "uid": "u"},
            "spec": {"containers": [{"name": "a"}, {"name": "never"}]},
        }))
        .unwrap();
        let mut history = History::default();
        history.container_mut("a").attempts = 3;
        GoneLogs::open(kept.clone()).keep(&pod, &history, &logs);
        assert!(!logs.exists());
        // Something that was cut short, as by a power cut.
        fs::create_dir(kept.join("nobody")).unwrap();
        let next = GoneLogs::open(kept.clone());
        let found = next.find("default");
        assert_eq!(found.len(), 1);
        let (folder, record) = next.get("u").unwrap();
        assert_eq!((record.pod.as_str(), record.bytes), ("web", 12));
        let expected = Kept {
            name: "a".to_owned(),
            attempt: 2,
        };
        assert_eq!(record.containers, [expected]);
        let mut names: Vec<String> = fs::read_dir(folder.join("a"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["1.log", "2.log", "2.log.1"]);
        assert!(!kept.join("nobody").exists());
        assert!(next.find("other").is_empty());
    }
}
