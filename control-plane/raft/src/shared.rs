//! The replica's copy of the store, as readers and watchers see it.
//!
//! The state machine changes it; everyone else reads. A watcher never sees an event before the snapshot that
//! contains it is published.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use flotilla_store::{HistoryPage, HistorySize, ResourceName, Revision, Snapshot, State, TooOld};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The last entry that was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppliedTo {
    /// Index after it, so that zero means none.
    pub(crate) next_index: u64,
    /// The term of its leader.
    pub(crate) term: u64,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    published: ArcSwap<Snapshot>,
    applied: watch::Sender<AppliedTo>,
    news: Mutex<BTreeMap<ResourceName, watch::Sender<()>>>,
    /// Set when the replica stops.
    pub(crate) closed: CancellationToken,
    failure: OnceLock<String>,
}

impl Shared {
    pub(crate) fn new(state: State, applied: AppliedTo, closed: CancellationToken) -> Shared {
        Shared {
            published: ArcSwap::from_pointee(state.snapshot().clone()),
            state: Mutex::new(state),
            applied: watch::Sender::new(applied),
            news: Mutex::default(),
            closed,
            failure: OnceLock::new(),
        }
    }

    /// Stops the replica because it cannot go on; its callers are told why.
    pub(crate) fn fail(&self, reason: String) {
        // The first reason is the cause of the others.
        let _ = self.failure.set(reason);
        self.closed.cancel();
    }

    /// Why the replica has stopped by itself.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// The objects now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::clone(&self.published.load())
    }

    /// Follows how far entries are applied.
    pub(crate) fn applied(&self) -> watch::Receiver<AppliedTo> {
        self.applied.subscribe()
    }

    /// Changes the state, publishes it, and wakes those who wait for the resources that were touched.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut State) -> (T, Vec<ResourceName>)) -> T {
        let (value, touched) = {
            let mut state = self.state();
            let changed = change(&mut state);
            self.published.store(Arc::new(state.snapshot().clone()));
            changed
        };
        let news = self.news();
        for resource in &touched {
            if let Some(sender) = news.get(resource) {
                sender.send_replace(());
            }
        }
        value
    }

    /// Replaces the state by a snapshot that was installed; every watcher has to look.
    pub(crate) fn replace(&self, state: State) {
        {
            let mut current = self.state();
            *current = state;
            self.published.store(Arc::new(current.snapshot().clone()));
        }
        for sender in self.news().values() {
            sender.send_replace(());
        }
    }

    /// How much watch history is kept.
    pub(crate) fn history_size(&self) -> HistorySize {
        self.state().history_size()
    }

    /// Forgets events up to a revision. Nobody is woken: who waits has seen them.
    pub(crate) fn forget_events(&self, upto: Revision) {
        self.state().forget_events(upto);
    }

    /// Tells that everything up to an entry is applied and published.
    pub(crate) fn set_applied(&self, applied: AppliedTo) {
        self.applied.send_replace(applied);
    }

    /// Events after a revision.
    pub(crate) fn events(
        &self,
        resource: &ResourceName,
        namespace: Option<&str>,
        after: Revision,
        events_max: usize,
    ) -> Result<HistoryPage, TooOld> {
        self.state().events(resource, namespace, after, events_max)
    }

    /// Is woken whenever the resource has new events.
    pub(crate) fn subscribe(&self, resource: &ResourceName) -> watch::Receiver<()> {
        self.news().entry(resource.clone()).or_default().subscribe()
    }

    /// The newest term among the applied entries.
    pub(crate) fn term(&self) -> u64 {
        self.state().term()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) -> MutexGuard<'_, BTreeMap<ResourceName, watch::Sender<()>>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
