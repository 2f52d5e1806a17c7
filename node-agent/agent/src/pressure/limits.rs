//! Evicts pods that fill more of the disk than they may.
//!
//! Only pods that have such a limit are counted. What they may is [`flotilla_lifecycle::pressure`]'s to say.

use std::sync::Arc;
use std::time::Duration;

use flotilla_lifecycle::pressure::{has_storage_limit, over_storage_limit};
use tokio_util::sync::CancellationToken;

use super::{evict, is_running};
use crate::disk_use::DiskUses;
use crate::outbox::Outbox;
use crate::pods::{PodView, Pods};

/// Between two looks. Kubelet looks every ten seconds.
const PERIOD: Duration = Duration::from_secs(2);

/// Keeps pods within their limits of local storage until shutdown.
pub(crate) struct LimitWatch {
    pub(crate) pods: Arc<Pods>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) disks: Arc<DiskUses>,
}

impl LimitWatch {
    /// Runs until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        loop {
            self.look().await;
            // Both arms only wait.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Looks once.
    pub(crate) async fn look(&self) {
        let is_limited = |view: &PodView| is_running(view) && has_storage_limit(&view.pod);
        for view in self.pods.views().into_iter().filter(is_limited) {
            let Some(message) = self.judge(&view).await else {
                continue;
            };
            evict(&self.pods, &self.outbox, &view.pod, message, false);
        }
    }

    async fn judge(&self, view: &PodView) -> Option<String> {
        let references = self.pods.references(view.pod.metadata.uid.as_deref()?)?;
        let (pod, disks) = (view.pod.clone(), self.disks.clone());
        // Half a period, so that a look which comes a little early counts anew.
        let counted = tokio::task::spawn_blocking(move || disks.of(&pod, &references, PERIOD / 2)).await;
        // A count does not panic; at shutdown there is nobody to evict.
        over_storage_limit(&view.pod, &counted.ok()?.storage_use())
    }
}
