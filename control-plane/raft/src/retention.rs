//! When a snapshot is taken, and how much of the log is kept behind it.
//!
//! The more there is in the store, the more a snapshot costs, and the more log may pile up before the next: together
//! they stay within a small multiple of what is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::error::Fatal;

use crate::consensus::Raft;
use crate::options::Limits;
use crate::shared::Shared;
use crate::storage::LogStore;

/// How much log there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Retention {
    /// A snapshot is taken after so many bytes of entries.
    snapshot_bytes: u64,
    /// So many are kept behind it.
    kept_bytes: u64,
}

/// Half of what is stored between two snapshots, a sixteenth behind one, within bounds.
fn plan(stored_bytes: u64, limits: &Limits) -> Retention {
    Retention {
        snapshot_bytes: (stored_bytes / 2).clamp(limits.snapshot_bytes_min, limits.snapshot_bytes_max),
        kept_bytes: (stored_bytes / 16).clamp(limits.kept_bytes_min, limits.kept_bytes_max),
    }
}

/// Takes snapshots when many bytes were applied since the last, and purges the log by bytes after each; openraft
/// itself counts only entries.
pub(crate) struct Keeper {
    pub(crate) raft: Raft,
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: LogStore,
    pub(crate) unsaved_bytes: Arc<AtomicU64>,
    pub(crate) limits: Limits,
}

impl Keeper {
    /// Runs until the replica stops.
    pub(crate) async fn run(self) {
        let mut metrics = self.raft.data_metrics();
        let mut purged_for = None;
        loop {
            tokio::select! {
                biased;
                // Both arms only wake the loop.
                () = self.shared.closed.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
            }
            let retention = plan(self.shared.snapshot().bytes(), &self.limits);
            let newest = metrics.borrow_and_update().snapshot;
            let kept = if newest == purged_for {
                Ok(())
            } else {
                purged_for = newest;
                self.purge(retention.kept_bytes).await
            };
            if kept.and(self.save(retention.snapshot_bytes).await).is_err() {
                return;
            }
        }
    }

    /// openraft purges nothing that its newest snapshot does not hold, whatever it is asked.
    async fn purge(&self, kept_bytes: u64) -> Result<(), Fatal<u64>> {
        match self.log.before_last(kept_bytes) {
            Some(upto) => self.raft.trigger().purge_log(upto).await,
            None => Ok(()),
        }
    }

    async fn save(&self, snapshot_bytes: u64) -> Result<(), Fatal<u64>> {
        if self.unsaved_bytes.load(Ordering::Relaxed) < snapshot_bytes {
            return Ok(());
        }
        self.unsaved_bytes.store(0, Ordering::Relaxed);
        self.raft.trigger().snapshot().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_log_is_kept_the_more_is_stored() {
        let plan = |mib: u64| {
            let plan = plan(mib << 20, &Limits::default());
            (plan.snapshot_bytes >> 20, plan.kept_bytes >> 20)
        };
        assert_eq!(plan(0), (4, 1));
        assert_eq!(plan(10), (5, 1));
        assert_eq!(plan(64), (32, 4));
        assert_eq!(plan(2048), (64, 16));
    }
}
