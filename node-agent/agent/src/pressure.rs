//! Looks for pressure on the node, and evicts pods one by one until it is over.
//!
//! Decisions are [`flotilla_lifecycle::pressure`]'s. *Guarantees*: at most one pod is on its way out at a time, and on
//! a full disk images that nobody uses go before pods do.

mod limits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_lifecycle::pressure::{
    Condition, Contestant, Met, Pressure, Pressures, Thresholds, Use, choose, met,
};
use flotilla_lifecycle::{Ended, Notice};
use flotilla_report::report;
use flotilla_volumes::DiskUsage;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::disk_use::{DiskUses, PodDisk};
use crate::gauges::Gauges;
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::pods::{PodView, Pods};
pub(crate) use limits::LimitWatch;

/// Between two looks. Kubelet looks every ten seconds and is woken by the kernel when memory is short; a look costs
/// some microseconds.
const PERIOD: Duration = Duration::from_secs(2);
/// A pod that was evicted may take this long to be gone before another one is.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// How long an evicted pod's containers may take to stop.
const GRACE_SECONDS: i64 = 1;

/// Watches the node until shutdown.
pub(crate) struct PressureWatch {
    pub(crate) gauges: Arc<dyn Gauges>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) thresholds: Thresholds,
    /// How long a condition outlasts its measurement.
    pub(crate) transition: Duration,
    /// What holds now.
    pub(crate) pressures: watch::Sender<Pressures>,
    /// What pods have on disk.
    pub(crate) disks: Arc<DiskUses>,
}

/// What is remembered from look to look.
#[derive(Default)]
pub(crate) struct Memory {
    pressure: Pressure,
    leaving: Option<(String, Instant)>,
    /// What was already told of.
    told: Vec<Condition>,
}

impl PressureWatch {
    /// Runs until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut memory = Memory::default();
        loop {
            self.look(&mut memory).await;
            // Both arms only wait.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Looks once, and does what has to be done.
    pub(crate) async fn look(&self, memory: &mut Memory) {
        let met = self.measure();
        let pressures = memory.pressure.note(&met, self.transition, Timestamp::now());
        self.pressures.send_if_modified(|known| {
            let is_news = *known != pressures;
            *known = pressures;
            is_news
        });
        let conditions = pressures.list();
        memory.told.retain(|condition| conditions.contains(condition));
        let Some(first) = met.first() else { return };
        if self.is_somebody_leaving(memory) {
            return;
        }
        self.tell_of(first, memory);
        let is_disk = first.signal.condition() == Condition::Disk;
        if is_disk && self.reclaim_images(first).await {
            return;
        }
        self.evict(first, memory).await;
    }

    fn measure(&self) -> Vec<Met> {
        met(&self.thresholds, &self.gauges.read().levels())
    }

    fn is_somebody_leaving(&self, memory: &mut Memory) -> bool {
        let Some((uid, since)) = &memory.leaving else {
            return false;
        };
        // What its volumes hold is given back after its containers have ended.
        let is_there = self.machine.observe(uid).is_some() || self.pods.has_volumes(uid);
        let leaves = since.elapsed() < GONE_WITHIN && is_there;
        if !leaves {
            memory.leaving = None;
        }
        leaves
    }

    fn tell_of(&self, met: &Met, memory: &mut Memory) {
        let condition = met.signal.condition();
        if memory.told.contains(&condition) {
            return;
        }
        memory.told.push(condition);
        let resource = met.signal.resource();
        tracing::warn!(
            resource,
            available = met.available,
            threshold = met.wanted,
            "the node is short of a resource"
        );
        let message = format!("Attempting to reclaim {resource}");
        self.outbox
            .node_event(Notice::of_pod(true, "EvictionThresholdMet", message));
    }

    /// Removes images that nobody uses. Whether that was enough.
    async fn reclaim_images(&self, met: &Met) -> bool {
        if let Err(error) = self.machine.collect_images().await {
            tracing::warn!(error = report(&error), "unused images cannot be removed");
        }
        !self.measure().iter().any(|still| still.signal == met.signal)
    }

    async fn evict(&self, met: &Met, memory: &mut Memory) {
        let views: Vec<PodView> = self.pods.views().into_iter().filter(is_running).collect();
        let is_disk = met.signal.condition() == Condition::Disk;
        let mut uses = Vec::with_capacity(views.len());
        for view in &views {
            uses.push(self.use_of(view, is_disk).await);
        }
        let contestants: Vec<Contestant<'_>> = views
            .iter()
            .zip(&uses)
            .map(|(view, (whole, containers))| Contestant {
                pod: &view.pod,
                whole: *whole,
                containers,
            })
            .collect();
        let Some((index, message)) = choose(met, &contestants) else {
            return;
        };
        let uid = evict(&self.pods, &self.outbox, &views[index].pod, message, true);
        memory.leaving = Some((uid, Instant::now()));
    }

    /// What a pod and its containers use. Disks are only walked when it matters.
    async fn use_of(&self, view: &PodView, is_disk: bool) -> (Use, BTreeMap<String, Use>) {
        let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
        let usage = self.machine.usage(uid).unwrap_or_default();
        let mut whole = of(&usage.whole);
        let names: BTreeMap<String, String> = self
            .machine
            .observe(uid)
            .unwrap_or_default()
            .containers
            .into_iter()
            .map(|container| (container.id, container.name))
            .collect();
        let mut containers: BTreeMap<String, Use> = usage
            .containers
            .iter()
            .filter_map(|(id, usage)| Some((names.get(id)?.clone(), of(usage))))
            .collect();
        if is_disk {
            let filled = self.disk_of(view).await;
            (whole.disk, whole.inodes) = pair(filled.whole());
            for (name, used) in &mut containers {
                (used.disk, used.inodes) = pair(filled.container(name));
            }
        }
        (whole, containers)
    }

    async fn disk_of(&self, view: &PodView) -> Arc<PodDisk> {
        let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
        let references = self.pods.references(uid).unwrap_or_default();
        let (pod, disks) = (view.pod.clone(), self.disks.clone());
        let counted = tokio::task::spawn_blocking(move || disks.of(&pod, &references, PERIOD)).await;
        counted.unwrap_or_default()
    }
}

/// Ends a pod and tells why; returns its uid.
fn evict(pods: &Pods, outbox: &Outbox, pod: &Pod, message: String, is_disruption: bool) -> String {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    tracing::warn!(pod = %flotilla_lifecycle::pod_label(pod), reason = message, "evicting a pod");
    outbox.event(pod, Notice::of_pod(true, "Evicted", message.clone()));
    let ended = Ended {
        reason: "Evicted".to_owned(),
        message,
        grace_seconds: GRACE_SECONDS,
        is_disruption,
    };
    pods.end(&uid, ended);
    uid
}

fn pair(usage: DiskUsage) -> (i64, i64) {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    (whole(usage.bytes), whole(usage.inodes))
}

fn of(usage: &flotilla_runtime::Usage) -> Use {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Use {
        memory: whole(usage.working_set_bytes),
        processes: whole(usage.processes),
        ..Use::default()
    }
}

/// Pods that have ended, or are on their way out, give back what they use without being evicted.
fn is_running(view: &PodView) -> bool {
    let phase = view.status.phase.as_deref();
    view.pod.metadata.deletion_timestamp.is_none()
        && view.history.ended.is_none()
        && !matches!(phase, Some("Succeeded" | "Failed"))
        && view.pod.metadata.uid.is_some()
}

#[cfg(test)]
mod tests;
