//! The one runner of all controllers: queue, backoff, one run per key, span and counters.
//!
//! Never lets two reconciles of one key overlap, and never calls one with more than the key.

mod metrics;
mod queue;

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotilla_api::{Reason, Status};
use flotilla_report::report;
use flotilla_store::Revision;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use metrics::Counters;
pub use metrics::{ControllerCounts, Metrics};
pub(crate) use queue::Next;
use queue::Pending;

/// So many keys of one controller are reconciled at once; each waits for the log most of its time.
const CONCURRENCY: usize = 32;

/// A controller: reconciles keys one at a time.
pub(crate) trait Reconcile: Send + Sync + 'static {
    /// Names what is reconciled.
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;
    /// The controller's name in logs and counters.
    const NAME: &'static str;
    /// Brings the object that the key names to what it should be. May be dropped at any point.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Next, ReconcileError>> + Send;
}

/// Why a key has to come again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// Somebody else was faster.
    #[error("the object was changed meanwhile")]
    Conflict(#[source] Status),
    /// A write or read did not succeed.
    #[error("the control plane answered {reason:?}: {message}", reason = .0.reason, message = .0.message)]
    Refused(Status),
    /// The cache lags behind a write of our own.
    #[error("the cache has not reached revision {0}")]
    Behind(Revision),
}

impl From<Status> for ReconcileError {
    fn from(status: Status) -> ReconcileError {
        match status.reason {
            Reason::Conflict => ReconcileError::Conflict(status),
            _ => ReconcileError::Refused(status),
        }
    }
}

/// Names an object of a kind that is known from the context.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectKey {
    /// Empty for objects of the whole cluster.
    pub(crate) namespace: String,
    /// The object's name.
    pub(crate) name: String,
}

impl ObjectKey {
    /// The key of an object.
    pub(crate) fn of<
        T: k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
    >(
        object: &T,
    ) -> ObjectKey {
        let meta = object.metadata();
        ObjectKey {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }

    /// The key of an object without a namespace.
    pub(crate) fn cluster(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: String::new(),
            name: name.to_owned(),
        }
    }
}

impl Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// Takes keys; a clone feeds the same controller.
pub(crate) struct Queue<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    pending: Mutex<Pending<K>>,
    added: Notify,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue.
    pub(crate) fn new() -> Queue<K> {
        Queue {
            inner: Arc::new(Inner {
                pending: Mutex::new(Pending::new()),
                added: Notify::new(),
            }),
        }
    }

    /// The key is to be reconciled soon.
    pub(crate) fn add(&self, key: K) {
        self.pending().add(key);
        self.inner.added.notify_one();
    }

    fn pending(&self) -> MutexGuard<'_, Pending<K>> {
        self.inner.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where controllers run: as long as this replica leads.
#[derive(Clone)]
pub(crate) struct Runner {
    /// Owns the tasks.
    pub(crate) tracker: TaskTracker,
    /// Ends them.
    pub(crate) shutdown: CancellationToken,
    /// Counts their work.
    pub(crate) metrics: Arc<Metrics>,
}

impl Runner {
    /// Reconciles the keys of `queue` until shutdown.
    pub(crate) fn start<C: Reconcile>(&self, controller: C, queue: Queue<C::Key>) {
        let dispatcher = Dispatcher {
            controller: Arc::new(controller),
            queue,
            counters: self.metrics.of(C::NAME),
            permits: Arc::new(Semaphore::new(CONCURRENCY)),
            runner: self.clone(),
        };
        self.tracker.spawn(dispatcher.run());
    }
}

struct Dispatcher<C: Reconcile> {
    controller: Arc<C>,
    queue: Queue<C::Key>,
    counters: Arc<Counters>,
    permits: Arc<Semaphore>,
    runner: Runner,
}

impl<C: Reconcile> Dispatcher<C> {
    async fn run(self) {
        loop {
            self.start_ready().await;
            let due = self.queue.pending().next_due();
            // All arms only wait: nothing is lost by dropping them.
            tokio::select! {
                () = self.runner.shutdown.cancelled() => return,
                () = self.queue.inner.added.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    async fn start_ready(&self) {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                return;
            };
            if self.runner.shutdown.is_cancelled() {
                return;
            }
            let Some(key) = self.queue.pending().take(Instant::now()) else {
                return;
            };
            let (controller, queue) = (Arc::clone(&self.controller), self.queue.clone());
            let (counters, shutdown) = (Arc::clone(&self.counters), self.runner.shutdown.clone());
            counters
                .depth
                .store(self.queue.pending().depth(), Ordering::Relaxed);
            self.runner.tracker.spawn(async move {
                // A reconcile may be dropped anywhere, that is its contract.
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = run_one(&*controller, &key, &queue, &counters) => {}
                }
                drop(permit);
            });
        }
    }
}

async fn run_one<C: Reconcile>(controller: &C, key: &C::Key, queue: &Queue<C::Key>, counters: &Counters) {
    let span = tracing::debug_span!("reconcile", controller = C::NAME, object = %key);
    let outcome = controller.reconcile(key).instrument(span).await;
    counters.runs.fetch_add(1, Ordering::Relaxed);
    let now = Instant::now();
    match outcome {
        Ok(next) => queue.pending().succeed(key, next, now),
        Err(error) => {
            let backoff = queue.pending().fail(key, now);
            note_failure(C::NAME, key, &error, backoff, counters);
        }
    }
    // Another round may be due at once, or at a time that the dispatcher does not know yet.
    queue.inner.added.notify_one();
}

fn note_failure(
    controller: &str,
    key: &impl Display,
    error: &ReconcileError,
    backoff: Duration,
    counters: &Counters,
) {
    if matches!(error, ReconcileError::Conflict(_)) {
        counters.conflicts.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(controller, object = %key, "a reconcile met a conflict and comes again");
        return;
    }
    counters.failures.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(controller, object = %key, error = report(error), ?backoff, "a reconcile failed and comes again");
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
