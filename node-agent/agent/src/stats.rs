//! Measures what the node and its pods use, every ten seconds, and hands the result to all sessions.
//!
//! Decides nothing: what becomes of the numbers is [`summary`]'s, and the servers'.

mod summary;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_report::report;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::disk_use::DiskUses;
use crate::gauges::Gauges;
use crate::machine::Machine;
use crate::pods::Pods;
use summary::{Measured, Part, Rates};

const PERIOD: Duration = Duration::from_secs(10);
/// A rate needs two measurements; a node that has just started need not wait a whole period for its first.
const FIRST_PERIOD: Duration = Duration::from_secs(2);
/// How old what pods have on disk may be; kubelet counts as often.
const DISK_AGE: Duration = Duration::from_secs(60);

/// Measures until shutdown.
pub(crate) struct Sampler {
    pub(crate) node_name: String,
    pub(crate) gauges: Arc<dyn Gauges>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) pods: Arc<Pods>,
    /// What pods have on disk.
    pub(crate) disks: Arc<DiskUses>,
    /// The newest summary as JSON.
    pub(crate) newest: watch::Sender<Bytes>,
}

impl Sampler {
    /// Runs until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let sampler = Arc::new(self);
        let mut rates = sampler.clone().sample(Rates::default()).await;
        // Both arms only wait.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(FIRST_PERIOD) => {}
        }
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Both arms only wait.
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            rates = sampler.clone().sample(rates).await;
        }
    }

    /// Reads some files for each container, which may block for a moment.
    async fn sample(self: Arc<Self>, mut rates: Rates) -> Rates {
        let measured = tokio::task::spawn_blocking(move || {
            let pods: Vec<Measured> = self.measure();
            let now = Timestamp::now();
            let summary = summary::summary(&self.node_name, &self.gauges.read(), &pods, &mut rates, now);
            match serde_json::to_vec(&summary) {
                Ok(json) => drop(self.newest.send_replace(json.into())),
                Err(error) => tracing::error!(error = report(&error), "statistics cannot be written"),
            }
            rates
        });
        // The blocking part does not panic; rates begin anew if it did.
        measured.await.unwrap_or_default()
    }

    fn measure(&self) -> Vec<Measured> {
        let traffic = self.machine.traffic();
        let mut measured: Vec<Measured> = Vec::new();
        for view in self.pods.views() {
            let uid = view.pod.metadata.uid.clone().unwrap_or_default();
            let Some(usage) = self.machine.usage(&uid) else {
                continue;
            };
            let observation = self.machine.observe(&uid).unwrap_or_default();
            let part = |container: &flotilla_runtime::ContainerState| {
                let usage = usage.containers.get(&container.id)?;
                Some(Part {
                    id: container.id.clone(),
                    name: container.name.clone(),
                    started_at: container.started_at,
                    usage: *usage,
                })
            };
            let references = self.pods.references(&uid).unwrap_or_default();
            measured.push(Measured {
                disk: self.disks.of(&view.pod, &references, DISK_AGE),
                namespace: view.pod.metadata.namespace.clone().unwrap_or_default(),
                name: view.pod.metadata.name.clone().unwrap_or_default(),
                started_at: view.history.started_at,
                whole: usage.whole,
                containers: observation.containers.iter().filter_map(part).collect(),
                traffic: traffic.get(&uid).copied(),
                uid,
            });
        }
        self.disks.retain(|uid| measured.iter().any(|pod| pod.uid == uid));
        measured
    }
}

/// What a pod uses, as the machine counts it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodUsage {
    pub(crate) whole: flotilla_runtime::Usage,
    /// By the runtime's id.
    pub(crate) containers: BTreeMap<String, flotilla_runtime::Usage>,
}
