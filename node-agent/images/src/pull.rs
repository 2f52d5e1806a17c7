//! Pulls images from registries: one download per image however many wait for it, a few images at once.
//!
//! *Guarantees*: a pull that nobody waits for any more ends, and what it had downloaded is where the next one goes on.

mod blob;
mod error;
mod image;
mod peers;
mod targets;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

pub use error::PullError;
use image::Job;
use targets::{Target, targets};

use crate::credentials::Keyring;
use crate::peers::Peers;
use crate::registries::Registries;
use crate::{Store, normalize};

/// Images that are pulled at the same time; others wait their turn.
const IMAGES_AT_ONCE: usize = 4;

/// Where a node keeps what it knows of registries.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The first `registries.yaml` of these that is there counts.
    pub registries: Vec<PathBuf>,
    /// All docker `config.json` of these that are there count.
    pub credentials: Vec<PathBuf>,
}

impl Settings {
    /// The files of a node whose agent keeps its data in `data_dir`.
    pub fn of_node(data_dir: &Path) -> Self {
        let files = |name: &str| vec![data_dir.join(name), Path::new("/etc/flotilla").join(name)];
        let mut credentials = files("config.json");
        credentials.push(PathBuf::from("/root/.docker/config.json"));
        Self {
            registries: files("registries.yaml"),
            credentials,
        }
    }
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// `sha256:…` of the image's configuration.
    pub id: String,
    /// `sha256:…` of the manifest or index that the reference names.
    pub digest: String,
    /// Size of all layers unpacked.
    pub size_bytes: u64,
    /// How long the work took.
    pub took: Duration,
    /// The same with the time in the queue.
    pub took_with_waiting: Duration,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub bytes_done: u64,
    /// Bytes in all; 0 before the manifest is known.
    pub bytes_total: u64,
}

#[derive(Debug, Default)]
struct Counters {
    done: AtomicU64,
    total: AtomicU64,
}

type Outcome = Result<Pulled, Arc<PullError>>;

/// What is pulled, and where and as whom it is looked for: nobody gets an image by another's password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    reference: String,
    targets: Vec<Target>,
    is_always: bool,
}

/// Someone's place among those who wait for an image.
pub struct Ticket {
    outcome: watch::Receiver<Option<Outcome>>,
    counters: Arc<Counters>,
}

impl Ticket {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_done: self.counters.done.load(Ordering::Relaxed),
            bytes_total: self.counters.total.load(Ordering::Relaxed),
        }
    }

    /// Waits for the end. May be dropped and called again.
    pub async fn done(&mut self) -> Result<Pulled, Arc<PullError>> {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome
                .clone()
                .unwrap_or_else(|| Err(Arc::new(PullError::Stopped))),
            Err(_) => Err(Arc::new(PullError::Stopped)),
        }
    }
}

/// Pulls into one store. Cheap to clone.
#[derive(Clone)]
pub struct Puller {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    settings: Settings,
    turns: Semaphore,
    flights: Mutex<HashMap<Key, Flight>>,
    tracker: TaskTracker,
    peers: OnceLock<Arc<dyn Peers>>,
}

struct Flight {
    outcome: Arc<watch::Sender<Option<Outcome>>>,
    counters: Arc<Counters>,
}

impl Puller {
    /// Pulls into `store`. What is under way ends with the last ticket for it.
    pub fn new(store: Store, settings: Settings) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                settings,
                turns: Semaphore::new(IMAGES_AT_ONCE),
                flights: Mutex::default(),
                tracker: TaskTracker::new(),
                peers: OnceLock::new(),
            }),
        }
    }

    /// From now on other nodes are asked before registries. Only the first call counts.
    pub fn set_peers(&self, peers: Arc<dyn Peers>) {
        // A second one would be the same nodes.
        let _ = self.inner.peers.set(peers);
    }

    /// Joins the pull of this image, or begins it. `keyring` has what the pod's secrets say; the node's own
    /// credentials are added here. With `is_always` the registry is asked even if another node has the image.
    pub fn pull(&self, reference: &str, mut keyring: Keyring, is_always: bool) -> Result<Ticket, PullError> {
        let reference = normalize(reference)?;
        let registries = Registries::read(&self.inner.settings.registries)?;
        self.inner.settings.add_credentials(&mut keyring)?;
        let targets = targets(&reference, &registries, &keyring);
        let key = Key {
            reference,
            targets,
            is_always,
        };
        let mut flights = self.inner.flights();
        let flight = flights.entry(key.clone()).or_insert_with(|| {
            let flight = Flight {
                outcome: Arc::new(watch::channel(None).0),
                counters: Arc::default(),
            };
            let (outcome, counters) = (flight.outcome.clone(), flight.counters.clone());
            let inner = self.inner.clone();
            let fly = async move { inner.fly(key, registries, outcome, counters).await };
            self.inner.tracker.spawn(fly);
            flight
        });
        Ok(Ticket {
            outcome: flight.outcome.subscribe(),
            counters: flight.counters.clone(),
        })
    }
}

impl Inner {
    async fn fly(
        &self,
        key: Key,
        registries: Registries,
        outcome: Arc<watch::Sender<Option<Outcome>>>,
        counters: Arc<Counters>,
    ) {
        let job = Job {
            store: &self.store,
            registries: &registries,
            reference: &key.reference,
            targets: &key.targets,
            counters: &counters,
            peers: self.peers.get().map(|peers| &**peers),
            is_always: key.is_always,
        };
        // Dropping the work loses nothing: what was downloaded stays, and what was unpacked half-way is collected.
        let result = tokio::select! {
            result = self.in_turn(&job) => result,
            () = self.abandoned(&key, &outcome) => return,
        };
        // Whoever comes from now on begins anew.
        self.flights().remove(&key);
        outcome.send_replace(Some(result.map_err(Arc::new)));
    }

    async fn in_turn(&self, job: &Job<'_>) -> Result<Pulled, PullError> {
        let asked = Instant::now();
        let _turn = self.turns.acquire().await.map_err(|_| PullError::Stopped)?;
        let begun = Instant::now();
        let mut pulled = job.pull().await?;
        pulled.took = begun.elapsed();
        pulled.took_with_waiting = asked.elapsed();
        Ok(pulled)
    }

    /// Returns once nobody waits, and then nobody can join any more.
    async fn abandoned(&self, key: &Key, outcome: &watch::Sender<Option<Outcome>>) {
        loop {
            outcome.closed().await;
            let mut flights = self.flights();
            if outcome.receiver_count() == 0 {
                flights.remove(key);
                return;
            }
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.flights.lock().expect("no holder of this lock panics")
    }
}

impl Settings {
    fn add_credentials(&self, keyring: &mut Keyring) -> Result<(), PullError> {
        for path in &self.credentials {
            match std::fs::read(path) {
                Ok(json) => keyring
                    .add_file(&json)
                    .map_err(|source| PullError::CredentialFile {
                        path: path.clone(),
                        source,
                    })?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(PullError::ReadCredentials {
                        path: path.clone(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}
