//! The clients: what they ask, through random replicas, and what they were told.

mod perform;
mod reader;
mod watcher;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_history::{Action, History, Listing, Operation, Outcome, Revision, Stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chance::Chance;
use crate::network::Network;
use crate::trace::Trace;

pub(crate) use self::perform::perform;

/// What all clients share. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Clients {
    network: Network,
    chance: Chance,
    trace: Trace,
    started: Instant,
    /// No new operations.
    stopping: CancellationToken,
    tracker: TaskTracker,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    history: History,
    /// The newest revision that anybody was shown.
    newest: Revision,
    /// Watchers end once they have seen everything up to here.
    through: Option<Revision>,
    /// Writers that have not ended.
    writing: u32,
    /// The probe got through everywhere.
    is_served: bool,
}

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Newest operations among which a write is looked for.
const LOOK_BACK: usize = 50;

impl Clients {
    /// Clients that have not begun. Called on their runtime.
    pub(crate) fn new(seed: u64, network: Network, trace: Trace) -> Clients {
        Clients {
            network,
            chance: Chance::new(seed, "clients"),
            trace,
            started: Instant::now(),
            stopping: CancellationToken::new(),
            tracker: TaskTracker::new(),
            shared: Arc::default(),
        }
    }

    /// Starts writers and watchers. Called on their runtime.
    pub(crate) fn start(&self, writers: u32, watchers: u32) {
        self.shared().writing = writers;
        for number in 0..writers {
            self.tracker.spawn(self.clone().write(number));
        }
        for number in 0..watchers {
            self.tracker.spawn(self.clone().watch(number));
        }
        self.tracker.spawn(self.clone().visit());
    }

    /// Lets the writers end.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether all have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Asks every address until each has taken a write and answered a read. Called on their runtime.
    pub(crate) fn probe(&self) {
        self.tracker.spawn(self.clone().probe_all());
    }

    /// Whether the probe got through everywhere.
    pub(crate) fn is_served(&self) -> bool {
        self.shared().is_served
    }

    /// Takes the last look, after which the watchers end. Called on their runtime.
    pub(crate) fn look(&self) {
        self.tracker.spawn(self.clone().last_look());
    }

    /// All that was seen.
    pub(crate) fn history(&self) -> History {
        self.shared().history.clone()
    }

    /// Whether all writers have ended.
    pub(crate) fn has_stopped(&self) -> bool {
        self.shared().writing == 0
    }

    /// Whether a write that was begun after a time was acknowledged.
    pub(crate) fn has_written_since(&self, time: u64) -> bool {
        let shared = self.shared();
        let later = shared.history.operations.iter().rev().take(LOOK_BACK);
        later
            .filter(|operation| operation.invoked > time)
            .any(|operation| matches!(operation.outcome, Outcome::Written(_)))
    }

    /// The clients' clock.
    pub(crate) fn now(&self) -> u64 {
        (Instant::now() - self.started).as_millis() as u64
    }

    /// A random replica's address.
    fn anyone(&self) -> String {
        self.chance.pick(&self.network.addresses()).unwrap_or_default()
    }

    /// Asks, and records what was answered.
    async fn ask(&self, client: u32, address: String, action: Action) -> Outcome {
        let invoked = self.now();
        let padding = if self.chance.one_in(20) { 9000 } else { 0 };
        let call = perform(&self.network, &address, action.clone(), padding);
        let outcome = match tokio::time::timeout(PATIENCE, call).await {
            Ok(outcome) => outcome,
            Err(_) => perform::unanswered(&action),
        };
        let operation = Operation {
            client,
            invoked,
            returned: self.now(),
            action,
            outcome: outcome.clone(),
        };
        self.trace.note(format_args!("{address}: {operation}"));
        let shared = &mut *self.shared();
        shared.newest = shared.newest.max(newest(&outcome));
        shared.history.operations.push(operation);
        outcome
    }

    async fn pause(&self, longest_ms: u64) {
        let pause = Duration::from_millis(self.chance.number(1..longest_ms + 1));
        tokio::time::sleep(pause).await;
    }

    fn record(&self, stream: Stream) {
        self.shared().history.streams.push(stream);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn newest(outcome: &Outcome) -> Revision {
    match outcome {
        Outcome::Written(revision) => revision.unwrap_or_default(),
        Outcome::Read(object) => object.as_ref().map_or(Revision(0), |object| object.revision),
        Outcome::Listed(Listing { revision, .. }) => *revision,
        _ => Revision(0),
    }
}
