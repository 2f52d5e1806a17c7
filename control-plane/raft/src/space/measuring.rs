//! Measures this server's data folder, and tells the others when it is over its quota.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::peer::SpaceReport;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Space;
use crate::consensus::Raft;
use crate::leadership::Leadership;
use crate::network::Peers;
use crate::platform::Platform;
use crate::shared::Shared;
use crate::storage::{LogStore, SnapshotFolder};

/// By so much a quota may be overrun: what is written in a second.
const MEASURE_PERIOD: Duration = Duration::from_secs(1);
/// An alarm is told to the others anew after so many measurements, well before they forget it.
const REPEAT_AFTER: u32 = 5;
/// What the log may take beyond what it needs while the folder is over its quota; a fresh tree has about as much.
const WASTE_WHEN_FULL_BYTES: u64 = 4 << 20;
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// What measuring needs.
pub(crate) struct Measuring {
    pub(crate) id: u64,
    pub(crate) space: Arc<Space>,
    pub(crate) platform: Platform,
    pub(crate) log: LogStore,
    pub(crate) snapshots: Arc<SnapshotFolder>,
    pub(crate) raft: Raft,
    pub(crate) shared: Arc<Shared>,
    pub(crate) peers: Peers,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) closed: CancellationToken,
}

impl Measuring {
    /// Runs until the replica stops.
    pub(crate) async fn run(self) {
        let mut since_told = 0;
        loop {
            let changed = self.measure().await;
            let own = self.space.own();
            if changed {
                tracing::warn!(
                    used_bytes = own.used_bytes,
                    quota_bytes = own.quota_bytes,
                    over = own.is_over(),
                    "the store's data has crossed its quota"
                );
            }
            since_told += 1;
            if changed || (own.is_over() && since_told >= REPEAT_AFTER) {
                since_told = 0;
                self.tell_others();
            }
            tokio::select! {
                biased;
                // Both arms only wake the loop.
                () = self.closed.cancelled() => return,
                () = tokio::time::sleep(MEASURE_PERIOD) => {}
            }
        }
    }

    /// True when the alarm was raised or lifted. What cannot be measured is as it was before.
    async fn measure(&self) -> bool {
        let (log, snapshots) = (self.log.clone(), Arc::clone(&self.snapshots));
        let measured = self
            .platform
            .blocking(move || std::io::Result::Ok((log.bytes_on_disk()?, snapshots.bytes_on_disk()?)));
        let Ok((log_bytes, snapshot_bytes)) = measured.await.and_then(|measured| measured) else {
            return false;
        };
        let changed = self.space.measured(log_bytes + snapshot_bytes);
        if self.space.own().is_over() {
            self.log.shrink(WASTE_WHEN_FULL_BYTES);
            if snapshot_is_stale(snapshot_bytes, self.shared.snapshot().bytes()) {
                // A replica that stops takes no snapshots any more.
                let _ = self.raft.trigger().snapshot().await;
            }
        }
        changed
    }

    fn tell_others(&self) {
        let own = self.space.own();
        let members = self.leadership.borrow().members.clone();
        for other in members.into_iter().filter(|member| member.id != self.id) {
            let report = SpaceReport {
                member: self.id,
                server: own.server.clone(),
                used_bytes: own.used_bytes,
                quota_bytes: own.quota_bytes,
            };
            let call = self.peers.transport.report_space(&other.address, report);
            self.peers.tracker.spawn(async move {
                // A server that cannot be told is told again while the alarm lasts; one that missed its end forgets it.
                let _ = tokio::time::timeout(REPORT_LIMIT, call).await;
            });
        }
    }
}

/// Whether a new snapshot would be much smaller: what was deleted since takes room until there is one.
fn snapshot_is_stale(snapshot_bytes: u64, stored_bytes: u64) -> bool {
    const SLACK_BYTES: u64 = 1 << 20;
    snapshot_bytes > stored_bytes + stored_bytes / 4 + SLACK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_stale_when_much_of_it_is_gone() {
        let mib = |count: u64| count << 20;
        assert!(!snapshot_is_stale(mib(100), mib(95)));
        assert!(snapshot_is_stale(mib(100), mib(70)));
        assert!(!snapshot_is_stale(mib(1), 0));
    }
}
