//! The disks of this node's persistent volumes: grown, given back and reported as their objects say.
//!
//! A disk is made when its first pod's volumes are; everything else happens here, and is told to a server until one has
//! written it down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_proto::node::nodes_client::NodesClient;
use flotilla_proto::node::{DiskGrown, DiskMade, DiskReleased, DiskReport, disk_report::Done};
use flotilla_report::report;
use flotilla_volumes::{Disk, DiskError, Duty, disk, duty};
use k8s_openapi::api::core::v1::PersistentVolume;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::follow::{Change, Follow, Servers};
use crate::machine::{ChangeDiskError, Machine};

/// A server that does not answer within this time is passed over.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// What could not be done, because a disk is in use or no server answers, is tried again after this long.
const RETRY: Duration = Duration::from_secs(2);

/// This node's volumes whose objects have changed since they were looked at.
#[derive(Default)]
pub(crate) struct Disks {
    pending: Mutex<BTreeMap<String, Arc<PersistentVolume>>>,
    arrived: Notify,
}

impl Disks {
    /// Hears of every volume from now on.
    pub(crate) fn hear(self: &Arc<Self>, follow: &mut Follow) {
        let disks = Arc::clone(self);
        follow.on(move |change: &Change<PersistentVolume>| {
            if let Change::Applied(volume) = change
                && disk(volume).is_some()
            {
                disks.add(volume.clone());
            }
        });
    }

    fn add(&self, volume: Arc<PersistentVolume>) {
        let name = volume.metadata.name.clone().unwrap_or_default();
        self.pending().insert(name, volume);
        self.arrived.notify_one();
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<PersistentVolume>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is to be done until shutdown.
    pub(crate) async fn run(
        self: Arc<Self>,
        node: String,
        machine: Arc<dyn Machine>,
        servers: Arc<Servers>,
        shutdown: CancellationToken,
    ) {
        let keeper = Keeper {
            node,
            machine,
            servers,
            told: Mutex::default(),
        };
        loop {
            // A duty that is dropped half-way is found again: it follows from the object and what is on the disk.
            let has_failed = tokio::select! {
                () = shutdown.cancelled() => return,
                has_failed = self.tend_all(&keeper) => has_failed,
            };
            // All arms only wait.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.arrived.notified() => {}
                () = tokio::time::sleep(RETRY), if has_failed => {}
            }
        }
    }

    /// Looks at every volume that has changed. True: some have to be looked at again.
    async fn tend_all(&self, keeper: &Keeper) -> bool {
        let round = std::mem::take(&mut *self.pending());
        let mut has_failed = false;
        for (name, volume) in round {
            if !keeper.tend(&volume).await {
                has_failed = true;
                self.pending().entry(name).or_insert(volume);
            }
        }
        has_failed
    }
}

struct Keeper {
    node: String,
    machine: Arc<dyn Machine>,
    servers: Arc<Servers>,
    /// The sizes that servers know of.
    told: Mutex<BTreeMap<String, u64>>,
}

impl Keeper {
    /// Does what is due for one volume. False: it has to be tried again.
    async fn tend(&self, volume: &PersistentVolume) -> bool {
        let Some(disk) = disk(volume) else { return true };
        let present = self.machine.disk_bytes(&disk.name);
        if !self.is_own(volume) {
            return true;
        }
        let Some(duty) = duty(volume, &self.node, present) else {
            return match present {
                Some(bytes) => self.tell_size(volume, bytes).await,
                // Its first pod makes it, and then it is told of.
                None => disk.is_made || volume.metadata.deletion_timestamp.is_some(),
            };
        };
        let Some(done) = self.carry_out(&disk, &duty).await else {
            return false;
        };
        // Whatever was done, the size is looked at again.
        self.tell(volume, done).await && !matches!(duty, Duty::Grow { .. } | Duty::TellMade)
    }

    /// Tells a size that no server was told of yet; a claim shows it from then on.
    async fn tell_size(&self, volume: &PersistentVolume, bytes: u64) -> bool {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let known = |told: &Mutex<BTreeMap<String, u64>>| {
            let told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.get(&name).copied()
        };
        if known(&self.told) == Some(bytes) {
            return true;
        }
        let grown = DiskGrown {
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        };
        let is_told = self.tell(volume, Done::Grown(grown)).await;
        if is_told {
            self.told
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name, bytes);
        }
        is_told
    }

    fn is_own(&self, volume: &PersistentVolume) -> bool {
        let annotations = volume.metadata.annotations.as_ref();
        let node = annotations.and_then(|annotations| annotations.get(flotilla_api::claims::DISK_NODE));
        node == Some(&self.node)
    }

    async fn carry_out(&self, disk: &Disk, duty: &Duty) -> Option<Done> {
        let (done, what) = match duty {
            Duty::TellMade => return Some(Done::Made(DiskMade {})),
            Duty::Release { remove: false } => return Some(Done::Released(DiskReleased {})),
            Duty::Release { remove: true } => (self.machine.remove_disk(&disk.name).await, "removed"),
            Duty::Grow { bytes } => (self.machine.grow_disk(&disk.name, *bytes).await, "grown"),
        };
        match done {
            Ok(()) => tracing::info!(disk = disk.name, what, "the disk of a persistent volume"),
            // It grows when it is mounted next, and is told of then.
            Err(ChangeDiskError::Disk(DiskError::Mounted { .. })) => return None,
            Err(error) => {
                tracing::warn!(
                    disk = disk.name,
                    error = report(&error),
                    "the disk of a persistent volume cannot be changed yet"
                );
                return None;
            }
        }
        Some(match duty {
            Duty::Grow { bytes } => Done::Grown(DiskGrown {
                bytes: i64::try_from(*bytes).unwrap_or(i64::MAX),
            }),
            _ => Done::Released(DiskReleased {}),
        })
    }

    async fn tell(&self, volume: &PersistentVolume, done: Done) -> bool {
        let said = DiskReport {
            volume: volume.metadata.name.clone().unwrap_or_default(),
            uid: volume.metadata.uid.clone().unwrap_or_default(),
            done: Some(done),
        };
        for address in self.servers.in_order() {
            let mut client = NodesClient::new(self.servers.channel(&address));
            match timeout(CALL_LIMIT, client.disk(said.clone())).await {
                Ok(Ok(_)) => return true,
                Ok(Err(status)) => tracing::debug!(
                    server = address,
                    error = status.message(),
                    "a disk's state was not written down"
                ),
                Err(_) => {}
            }
        }
        false
    }
}
