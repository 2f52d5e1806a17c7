//! The probes and hooks of one pod: a task for each that is to run, and what they report.
//!
//! Which are to run is [`flotilla_lifecycle::wanted_probes`]'s and [`flotilla_lifecycle::wanted_hooks`]'s decision. A
//! task that is no longer wanted is cancelled, and what it may still report is old news to the history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_lifecycle::{
    History, HookKind, ProbeKind, ProbeOutcome, WantedHook, WantedProbe, hook_failure, pause, period,
    timeout, wanted_hooks, wanted_probes,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Surroundings, Worker, until};
use crate::checkpoint::Checkpoint;
use crate::checks::{self, Subject};

/// Reports that wait for the worker; each task has one under way at most, and a pod has few containers.
const REPORTS_MAX: usize = 16;
/// A hook that Kubernetes would wait for without end: the grace of a pod is what limits it, by cancelling it.
const HOOK_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What a task has to say.
#[derive(Debug)]
pub(super) enum Report {
    Probe {
        container: String,
        id: String,
        kind: ProbeKind,
        outcome: ProbeOutcome,
        /// Asked between two periods, so not worth an event.
        is_extra: bool,
    },
    Hook {
        container: String,
        id: String,
        kind: HookKind,
        result: Result<(), String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Probe(String, ProbeKind),
    Hook(String, HookKind),
}

/// The tasks of one pod. Dropping it ends them.
pub(super) struct Tending {
    tasks: BTreeMap<Key, DropGuard>,
    sender: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
}

impl Tending {
    pub(super) fn new() -> Self {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        Self {
            tasks: BTreeMap::new(),
            sender,
            reports,
        }
    }

    /// The next report. Cancel safe.
    pub(super) async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            // Never: there is a sender beside it.
            None => std::future::pending().await,
        }
    }

    /// Starts what is wanted and does not run yet, and ends what is no longer wanted.
    pub(super) fn tend(&mut self, surroundings: &Arc<Surroundings>, uid: &str, pod: &Pod, history: &History) {
        let hosts = &surroundings.host_addresses;
        let probes = wanted_probes(pod, history, hosts);
        let hooks = wanted_hooks(pod, history, hosts);
        if probes.is_empty() && hooks.is_empty() {
            self.tasks.clear();
            return;
        }
        let mut wanted = BTreeMap::new();
        for probe in probes {
            let key = Key::Probe(probe.id.clone(), probe.kind);
            let task = self.tasks.remove(&key);
            let task = task.unwrap_or_else(|| self.start_probe(surroundings, uid, probe));
            wanted.insert(key, task);
        }
        for hook in hooks {
            let key = Key::Hook(hook.id.clone(), hook.kind);
            let task = self.tasks.remove(&key);
            let task = task.unwrap_or_else(|| self.start_hook(surroundings, uid, hook));
            wanted.insert(key, task);
        }
        self.tasks = wanted;
    }

    fn start_probe(&self, surroundings: &Arc<Surroundings>, uid: &str, wanted: WantedProbe) -> DropGuard {
        let prober = Prober {
            surroundings: surroundings.clone(),
            uid: uid.to_owned(),
            wanted,
            reports: self.sender.clone(),
        };
        let stop = CancellationToken::new();
        let cancelled = stop.clone();
        surroundings.tasks.spawn(async move {
            // A probe that is cut short has found nothing.
            cancelled.run_until_cancelled(prober.run()).await;
        });
        stop.drop_guard()
    }

    fn start_hook(&self, surroundings: &Arc<Surroundings>, uid: &str, wanted: WantedHook) -> DropGuard {
        let (surroundings, uid) = (surroundings.clone(), uid.to_owned());
        let (reports, stop) = (self.sender.clone(), CancellationToken::new());
        let (tasks, cancelled) = (surroundings.tasks.clone(), stop.clone());
        let run = async move {
            let subject = Subject {
                uid: &uid,
                id: &wanted.id,
            };
            let result = match &wanted.check {
                Ok(check) => checks::hook(&*surroundings.machine, subject, check, HOOK_LIMIT).await,
                Err(error) => Err(error.to_string()),
            };
            let report = Report::Hook {
                container: wanted.container,
                id: wanted.id,
                kind: wanted.kind,
                result,
            };
            // A worker that has ended needs no report.
            let _ = reports.send(report).await;
        };
        tasks.spawn(async move {
            // A hook that is cut short had its time.
            cancelled.run_until_cancelled(run).await;
        });
        stop.drop_guard()
    }
}

impl Worker {
    /// Notes what a probe or hook has found; false when that changes nothing.
    pub(super) fn learn_report(&mut self, report: Report) -> bool {
        let Checkpoint { pod, history, .. } = &mut self.checkpoint;
        match report {
            Report::Probe {
                container,
                id,
                kind,
                outcome,
                is_extra,
            } => {
                let before = history.container(&container).probes;
                let notice = history.probed(pod, &container, &id, kind, &outcome);
                let is_news = history.container(&container).probes != before;
                notice
                    .into_iter()
                    .filter(|_| !is_extra)
                    .for_each(|notice| self.tell(notice));
                is_news
            }
            Report::Hook {
                container,
                id,
                kind,
                result,
            } => {
                match kind {
                    HookKind::PostStart => history.post_started(&container, &id, result.clone().err()),
                    HookKind::PreStop => history.pre_stopped(&container, &id),
                }
                if let Err(error) = result {
                    tracing::info!(pod = self.uid, container, why = error, "a hook failed");
                    self.tell(hook_failure(&self.checkpoint.pod, &container, kind));
                }
                true
            }
        }
    }
}

/// Runs one probe again and again.
struct Prober {
    surroundings: Arc<Surroundings>,
    uid: String,
    wanted: WantedProbe,
    reports: mpsc::Sender<Report>,
}

impl Prober {
    async fn run(self) {
        let WantedProbe { kind, probe, .. } = &self.wanted;
        let (kind, period) = (*kind, period(probe));
        tokio::time::sleep(self.first_wait(period)).await;
        let mut was_ready = self.wanted.was_ready;
        let mut failures = 0;
        let mut told_at: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let outcome = self.look().await;
            match outcome {
                ProbeOutcome::Success | ProbeOutcome::Warning(_) => was_ready = true,
                ProbeOutcome::Failure(_) | ProbeOutcome::Unknown(_) => failures += 1,
            }
            let is_extra = told_at.is_some_and(|at| began.duration_since(at) < period);
            if !is_extra {
                told_at = Some(began);
            }
            let report = Report::Probe {
                container: self.wanted.container.clone(),
                id: self.wanted.id.clone(),
                kind,
                outcome,
                is_extra,
            };
            if self.reports.send(report).await.is_err() {
                return;
            }
            let pause = pause(kind, &self.wanted.probe, was_ready, failures);
            tokio::time::sleep_until(began + pause).await;
        }
    }

    /// The probes of all containers that a new agent finds would otherwise run at the same moment.
    fn first_wait(&self, period: Duration) -> Duration {
        let delay = until(self.wanted.not_before);
        let is_found = Timestamp::now().duration_since(self.wanted.not_before)
            > jiff::SignedDuration::try_from(self.surroundings.started.elapsed()).unwrap_or_default();
        if is_found && self.surroundings.started.elapsed() < period {
            return delay + period.mul_f64(rand::rng().random_range(0.0..1.0));
        }
        delay
    }

    async fn look(&self) -> ProbeOutcome {
        let subject = Subject {
            uid: &self.uid,
            id: &self.wanted.id,
        };
        let limit = timeout(&self.wanted.probe);
        match &self.wanted.check {
            Ok(check) => checks::probe(&*self.surroundings.machine, subject, check, limit).await,
            Err(error) => ProbeOutcome::Unknown(error.to_string()),
        }
    }
}
