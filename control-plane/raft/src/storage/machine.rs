//! The replicated state machine: hands committed entries to the store, takes and installs snapshots.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_store::planted::{PlantedBug, is_planted};
use flotilla_store::{HistoryLimits, Outcome, Snapshot, State, Transaction};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder};

use super::{SnapshotFile, SnapshotFolder, io_error};
use crate::consensus::{
    self, Entry, LogId, Outcomes, Proposals, SnapshotMeta, StorageError, StoredMembership, TypeConfig,
};
use crate::platform::Platform;
use crate::shared::{AppliedTo, Shared};

/// Applies entries in order; owned by openraft.
pub(crate) struct Machine {
    shared: Arc<Shared>,
    snapshots: Arc<SnapshotFolder>,
    history: HistoryLimits,
    last_applied: Option<LogId>,
    /// What was applied when the replica was opened.
    opened_at: Option<LogId>,
    membership: StoredMembership,
    /// Bytes of entries applied since the last snapshot.
    unsaved_bytes: Arc<AtomicU64>,
    platform: Platform,
}

impl Machine {
    /// A machine in the state of `meta`, which `shared` already has.
    pub(crate) fn new(
        shared: Arc<Shared>,
        snapshots: Arc<SnapshotFolder>,
        history: HistoryLimits,
        meta: SnapshotMeta,
        unsaved_bytes: Arc<AtomicU64>,
        platform: Platform,
    ) -> Machine {
        Machine {
            shared,
            snapshots,
            history,
            last_applied: meta.last_log_id,
            opened_at: meta.last_log_id,
            membership: meta.last_membership,
            unsaved_bytes,
            platform,
        }
    }

    fn apply_entry(&mut self, entry: Entry) -> Result<Outcomes, StorageError> {
        let log_id = entry.log_id;
        let term = log_id.leader_id.term;
        let outcomes = match entry.payload {
            EntryPayload::Normal(proposals) => {
                if is_planted(PlantedBug::ApplyTwice) && self.last_applied == self.opened_at {
                    self.apply_proposals(&proposals, log_id)?;
                }
                self.apply_proposals(&proposals, log_id)?
            }
            EntryPayload::Blank => self.observe_term(term),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                self.observe_term(term)
            }
        };
        self.last_applied = Some(log_id);
        self.shared.set_applied(applied_to(self.last_applied));
        if let Some(witness) = &self.platform.witness {
            witness.applied(term, log_id.index, &self.shared.snapshot());
        }
        Ok(outcomes)
    }

    fn observe_term(&self, term: u64) -> Outcomes {
        self.shared.update(|state| {
            state.observe_term(term);
            (Outcomes::default(), Vec::new())
        })
    }

    fn apply_proposals(&self, proposals: &Proposals, log_id: LogId) -> Result<Outcomes, StorageError> {
        // The proposer's replica decoded each before it was proposed, so this fails only on a replica that
        // does not know the format: it must stop rather than diverge.
        let transactions: Vec<Transaction> = proposals
            .transactions
            .iter()
            .map(|bytes| consensus::decode(bytes))
            .collect::<Result<_, _>>()
            .map_err(|error| {
                io_error(
                    ErrorSubject::Apply(log_id),
                    ErrorVerb::Read,
                    &io::Error::other(error),
                )
            })?;
        self.unsaved_bytes
            .fetch_add(proposals.bytes() as u64, Ordering::Relaxed);
        Ok(self.shared.update(|state| {
            state.observe_term(log_id.leader_id.term);
            let mut touched = Vec::new();
            let outcomes: Vec<Outcome> = transactions
                .iter()
                .map(|transaction| {
                    let applied = state.apply(transaction);
                    touched.extend(applied.touched);
                    applied.outcome
                })
                .collect();
            touched.sort_unstable();
            touched.dedup();
            (Outcomes(outcomes), touched)
        }))
    }
}

/// How far the state is when `last` was the last entry applied.
pub(crate) fn applied_to(last: Option<LogId>) -> AppliedTo {
    last.map_or_else(AppliedTo::default, |log_id| AppliedTo {
        next_index: log_id.index + 1,
        term: log_id.leader_id.term,
    })
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        entries.into_iter().map(|entry| self.apply_entry(entry)).collect()
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let index = self.last_applied.map_or(0, |log_id| log_id.index);
        self.unsaved_bytes.store(0, Ordering::Relaxed);
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.last_applied,
                last_membership: self.membership.clone(),
                snapshot_id: index.to_string(),
            },
            snapshot: self.shared.snapshot(),
            term: self.shared.term(),
            snapshots: Arc::clone(&self.snapshots),
            platform: self.platform.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        // Our transport receives into a file of its own, see `service`.
        let (_, file) = self
            .snapshots
            .create_partial()
            .map_err(|error| snapshot_error(ErrorVerb::Write, &error))?;
        Ok(Box::new(SnapshotFile { file, content: None }))
    }

    /// The file is durable already: openraft purges the log while this runs, see `service`.
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotFile>,
    ) -> Result<(), StorageError> {
        let saved = snapshot.content.ok_or_else(|| {
            let error = io::Error::other("the received snapshot was not read before it was installed");
            snapshot_error(ErrorVerb::Read, &error)
        })?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.unsaved_bytes.store(0, Ordering::Relaxed);
        self.shared
            .replace(State::new(saved.objects, saved.term, self.history));
        self.shared.set_applied(applied_to(self.last_applied));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<openraft::Snapshot<TypeConfig>>, StorageError> {
        let newest = self
            .snapshots
            .newest()
            .map_err(|error| snapshot_error(ErrorVerb::Read, &error))?;
        Ok(newest.map(|(meta, file)| openraft::Snapshot {
            meta,
            snapshot: Box::new(file),
        }))
    }
}

/// Writes one snapshot from a pointer to the state, while entries go on being applied.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    snapshot: Snapshot,
    term: u64,
    snapshots: Arc<SnapshotFolder>,
    platform: Platform,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<openraft::Snapshot<TypeConfig>, StorageError> {
        let (meta, snapshot, term) = (self.meta.clone(), self.snapshot.clone(), self.term);
        let folder = Arc::clone(&self.snapshots);
        let written = self
            .platform
            .blocking(move || folder.write(&meta, &snapshot, term));
        let file = written
            .await
            .unwrap_or_else(Err)
            .map_err(|error| snapshot_error(ErrorVerb::Write, &error))?;
        Ok(openraft::Snapshot {
            meta: self.meta.clone(),
            snapshot: Box::new(file),
        })
    }
}

fn snapshot_error(verb: ErrorVerb, error: &io::Error) -> StorageError {
    io_error(ErrorSubject::Snapshot(None), verb, error)
}
