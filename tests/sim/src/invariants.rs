//! What must hold in every run, one file each, and who is told of a violation.

mod growing_revisions;
mod linearizable;
mod log_matching;
mod no_lost_write;
mod one_leader;
mod same_state;
mod watch_streams;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_history::History;
use flotilla_raft::Leadership;
use flotilla_raft::platform::{Place, Witness};
use flotilla_store::Snapshot;

/// Looks at everything that replicas do. Clones are handles of the same one.
#[derive(Clone, Default)]
pub(crate) struct Checks(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    leaders: one_leader::Leaders,
    logs: log_matching::Logs,
    states: same_state::States,
    revisions: growing_revisions::Revisions,
    violation: Option<String>,
}

impl Checks {
    /// A violation, if there was one.
    pub(crate) fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    /// Reports a violation; the first counts.
    pub(crate) fn violated(&self, what: impl Into<String>) {
        self.state().violation.get_or_insert_with(|| what.into());
    }

    /// A replica says who leads.
    pub(crate) fn leadership(&self, member: u64, leadership: &Leadership) {
        let state = &mut *self.state();
        let checked = state.leaders.observe(member, leadership);
        state.take(checked);
    }

    /// Holds what clients saw, and what the replicas hold in the end, against the promises.
    pub(crate) fn finish(&self, history: &History, replicas: &[(u64, Snapshot)]) {
        let checked = replicas
            .iter()
            .try_for_each(|(member, state)| no_lost_write::check(*member, state, history))
            .and_then(|()| watch_streams::check(history))
            .and_then(|()| linearizable::check(history));
        self.state().take(checked);
    }

    /// What one replica is watched by.
    pub(crate) fn witness(&self, member: u64) -> Arc<dyn Witness> {
        Arc::new(Watched {
            member,
            checks: self.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, checked: Result<(), String>) {
        if let Err(violation) = checked {
            self.violation.get_or_insert(violation);
        }
    }
}

struct Watched {
    member: u64,
    checks: Checks,
}

impl Witness for Watched {
    fn appended(&self, previous: Option<Place>, place: Place, content: &[u8]) {
        let state = &mut *self.checks.state();
        let checked = state.logs.appended(self.member, previous, place, content);
        state.take(checked);
    }

    fn applied(&self, term: u64, index: u64, after: &Snapshot) {
        let state = &mut *self.checks.state();
        let checked = state.states.applied(self.member, (term, index), after);
        state.take(checked);
        let checked = state.revisions.applied(self.member, index, after);
        state.take(checked);
    }
}
