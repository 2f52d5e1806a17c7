//! How the store is doing, in numbers.

use flotilla_store::{HistorySize, Revision};

use crate::replica::Core;
use crate::space::SpaceUse;

/// How the store is doing on this server.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// The newest change that this server has applied.
    pub revision: Revision,
    /// Objects of all kinds.
    pub objects: usize,
    /// What they and their names take.
    pub object_bytes: u64,
    /// How much watch history is kept.
    pub history: HistorySize,
    /// This server's data folder.
    pub space: SpaceUse,
    /// The servers whose folders are over their quota: writes are refused while there is one.
    pub alarms: Vec<SpaceUse>,
    /// Writes that this server refused for want of room, while it led.
    pub refused_for_space: u64,
    /// Why this server can go no further, if it cannot.
    pub failure: Option<String>,
    /// Raft's term.
    pub term: u64,
    /// Index of the newest entry of the log.
    pub last_log_index: u64,
    /// Index of the newest entry that was applied.
    pub applied_index: u64,
    /// Proposals that wait for their turn.
    pub proposals_waiting: usize,
    /// Readers that wait for their turn.
    pub readers_waiting: usize,
}

impl StoreStatus {
    pub(crate) fn of(core: &Core) -> StoreStatus {
        let snapshot = core.shared.snapshot();
        let metrics = core.raft.data_metrics().borrow().clone();
        StoreStatus {
            revision: snapshot.revision(),
            objects: snapshot.len(),
            object_bytes: snapshot.bytes(),
            history: core.shared.history_size(),
            space: core.space.own(),
            alarms: core.space.alarms(),
            refused_for_space: core.space.refused(),
            failure: core.shared.failure().map(str::to_owned),
            term: core.leadership.borrow().term,
            last_log_index: metrics.last_log.map_or(0, |log_id| log_id.index),
            applied_index: metrics.last_applied.map_or(0, |log_id| log_id.index),
            proposals_waiting: core.proposer.waiting(),
            readers_waiting: core.reader.waiting(),
        }
    }
}
