//! One task per pod: reads the world, asks [`flotilla_lifecycle::plan`], carries out its steps.
//!
//! *Guarantees*: what happened is on disk before it is reported, and a container's end is reported before what is
//! left of it is removed. *Assumes*: nobody else touches the pod's sandbox.

mod absorb;
mod images;
mod last_words;
mod resizing;
mod security;
mod starting;
mod steps;
mod tending;
mod volumes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_api::static_pods::is_static;
use flotilla_images::Image;
use flotilla_lifecycle::pressure::Pressures;
use flotilla_lifecycle::{
    Notice, Permits, Plan, Quantities, Sandbox, ServiceAddress, View, find_container, notices, plan,
    service_variables,
};
use flotilla_proto::node::NodeConfig;
use flotilla_report::report;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::resizing::Claims;
use self::tending::{Report, Tending};
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::disk_use::log_folder;
use crate::follow::Mirror;
use crate::gone::GoneLogs;
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::pods::{Desired, PodView};
use crate::tokens::TokenClient;
use absorb::absorb;
use images::{PullEnd, Pulls};

/// A state that the next step will change is told only if the step takes this long.
const PASSING: Duration = Duration::from_millis(150);
/// After a step that could not be carried out.
const RETRY: Duration = Duration::from_secs(1);

/// What all workers share.
pub(crate) struct Surroundings {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) host_addresses: Vec<IpAddr>,
    /// What pods may have of this node.
    pub(crate) allocatable: Quantities,
    /// What the node lets pods have.
    pub(crate) permits: Permits,
    /// Of what the node is short.
    pub(crate) pressures: watch::Receiver<Pressures>,
    /// What the control plane said about the cluster's network and names.
    pub(crate) cluster: watch::Receiver<Option<NodeConfig>>,
    /// The logs of pods that are gone.
    pub(crate) gone: Arc<GoneLogs>,
    /// Folders of the pods' logs.
    pub(crate) logs_dir: PathBuf,
    /// Folders of the files that a pod's containers share.
    pub(crate) files_dir: PathBuf,
    /// What the pods were promised.
    pub(crate) claims: Claims,
    /// Probes and hooks.
    pub(crate) tasks: TaskTracker,
    /// When this agent began.
    pub(crate) started: Instant,
    /// Addresses of the cluster's services.
    pub(crate) services: Mirror<ServiceAddress>,
    /// Gets service account tokens from the control plane.
    pub(crate) tokens: Arc<TokenClient>,
}

impl Surroundings {
    /// What the pod's containers are told of services.
    pub(crate) fn service_variables(&self, pod: &Pod) -> Vec<(String, String)> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let own = self.services.list(namespace);
        let kubernetes = self.services.get("default", "kubernetes");
        service_variables(pod, kubernetes.as_deref(), own.iter().map(|service| &**service))
    }

    /// The folder of a pod's logs.
    pub(crate) fn log_dir(&self, pod: &Pod) -> PathBuf {
        self.logs_dir.join(log_folder(pod))
    }
}

/// Drives one pod until nothing of it is left or the agent shuts down.
pub(crate) struct Worker {
    surroundings: Arc<Surroundings>,
    uid: String,
    desired: watch::Receiver<Desired>,
    view: watch::Sender<PodView>,
    checkpoint: Checkpoint,
    saved: Option<Checkpoint>,
    images: BTreeMap<String, Image>,
    pulls: Pulls,
    changes: Option<watch::Receiver<u64>>,
    tending: Tending,
    /// When a token in a volume is to be replaced.
    renewal_at: Option<Timestamp>,
}

/// Why a wait ended.
enum Woken {
    Again,
    Pulled(Result<PullEnd, JoinError>),
    Shutdown,
    Report(Report),
}

impl Worker {
    pub(crate) fn new(
        surroundings: Arc<Surroundings>,
        uid: String,
        desired: watch::Receiver<Desired>,
        view: watch::Sender<PodView>,
        checkpoint: Checkpoint,
    ) -> Self {
        Self {
            surroundings,
            uid,
            desired,
            view,
            checkpoint,
            saved: None,
            images: BTreeMap::new(),
            pulls: Pulls::new(),
            changes: None,
            tending: Tending::new(),
            renewal_at: None,
        }
    }

    /// Runs until the pod is gone. On shutdown the containers are left as they are.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        self.checkpoint
            .history
            .started_at
            .get_or_insert_with(Timestamp::now);
        let Checkpoint { pod, history, .. } = &mut self.checkpoint;
        history.taken_over(pod);
        self.checkpoint.history.volumes_unsure();
        loop {
            self.take_desired();
            self.note_renewal();
            self.observe().await;
            self.judge_resize();
            let plan = self.plan();
            if plan.is_ending {
                self.surroundings.claims.release(&self.uid);
                self.checkpoint
                    .history
                    .stopping_since
                    .get_or_insert_with(Timestamp::now);
                self.pulls = Pulls::new();
            }
            self.publish(&plan);
            self.tend();
            self.tidy().await;
            if plan.is_gone {
                self.finish(&shutdown).await;
                return;
            }
            let look_again_at = plan.look_again_at.into_iter().chain(self.renewal_at).min();
            let mut limit = look_again_at.map(|at| Instant::now() + until(at));
            if !plan.steps.is_empty() {
                if self.perform(plan.steps).await {
                    if shutdown.is_cancelled() {
                        return;
                    }
                    continue;
                }
                limit = Some(Instant::now() + RETRY);
            }
            if !self.idle(limit, &shutdown).await {
                return;
            }
        }
    }

    /// Waits until something has happened that may call for a step; false on shutdown.
    async fn idle(&mut self, limit: Option<Instant>, shutdown: &CancellationToken) -> bool {
        loop {
            match self.wait(limit, shutdown).await {
                Woken::Again => return true,
                Woken::Shutdown => return false,
                Woken::Pulled(end) => {
                    self.learn_pull(end).await;
                    return true;
                }
                Woken::Report(report) => {
                    if self.learn_report(report) {
                        return true;
                    }
                }
            }
        }
    }

    fn tend(&mut self) {
        let Checkpoint { pod, history, .. } = &self.checkpoint;
        self.tending.tend(&self.surroundings, &self.uid, pod, history);
    }

    fn take_desired(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        let checkpoint = &mut self.checkpoint;
        if checkpoint.pod != *desired.pod || checkpoint.references() != *desired.references {
            checkpoint.pod = (*desired.pod).clone();
            let policies = self.surroundings.machine.policies();
            policies.change(|model| model.local_pod_changed(&self.uid, &checkpoint.pod));
            checkpoint.refer_to((*desired.references).clone());
            checkpoint.history.inputs_changed();
        }
        checkpoint.history.removed |= desired.is_removed;
        if checkpoint.history.ended.is_none() {
            checkpoint.history.ended = desired.ended;
        }
    }

    /// Takes over what the runtime knows.
    async fn observe(&mut self) {
        if self.changes.is_none() {
            self.changes = self.surroundings.machine.changes(&self.uid);
        }
        // Marked as seen before looking, so that what comes in between wakes the worker again.
        if let Some(changes) = &mut self.changes {
            changes.borrow_and_update();
        }
        if self.checkpoint.history.sandbox != Sandbox::Ready {
            return;
        }
        let now = Timestamp::now();
        let observation = self.surroundings.machine.observe(&self.uid).unwrap_or_default();
        for container in &observation.containers {
            let Checkpoint { pod, history, .. } = &mut self.checkpoint;
            let Some(code) = absorb(pod, history, container) else {
                continue;
            };
            if let Some(message) = self.last_words(container, code).await {
                let history = &mut self.checkpoint.history;
                history.container_mut(&container.name).left_message(message);
            }
        }
        let history = &mut self.checkpoint.history;
        for past in history.containers.values_mut() {
            let is_known = |id: &str| observation.containers.iter().any(|container| container.id == id);
            if past.run.as_ref().is_some_and(|run| !is_known(&run.id)) {
                past.lost(now);
            }
        }
        if !observation.is_alive {
            history.sandbox_lost(now);
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.tell(Notice::of_pod(false, "SandboxChanged", message));
        }
    }

    fn plan(&self) -> Plan {
        plan(&View {
            pod: &self.checkpoint.pod,
            history: &self.checkpoint.history,
            previous: &self.checkpoint.status,
            host_addresses: &self.surroundings.host_addresses,
            now: Timestamp::now(),
        })
    }

    /// Saves what is known, then tells it.
    fn publish(&mut self, plan: &Plan) {
        let before = std::mem::replace(&mut self.checkpoint.status, plan.status.clone());
        self.save();
        let hold = if plan.steps.is_empty() || is_flip(&before, &plan.status) {
            Duration::ZERO
        } else {
            PASSING
        };
        // What the leader never got of it shows when it assigns the pod again.
        let is_told = is_same(&before, &plan.status);
        if !is_told && !self.checkpoint.history.removed {
            self.surroundings
                .outbox
                .status(&self.checkpoint.pod, plan.status.clone(), hold);
        }
        for notice in notices(&self.checkpoint.pod, &before, &plan.status) {
            self.tell(notice);
        }
        self.view.send_replace(PodView {
            pod: Arc::new(self.checkpoint.pod.clone()),
            history: self.checkpoint.history.clone(),
            status: plan.status.clone(),
        });
    }

    fn save(&mut self) {
        if self.saved.as_ref() == Some(&self.checkpoint) {
            return;
        }
        match self.surroundings.checkpoints.save(&self.uid, &self.checkpoint) {
            Ok(()) => self.saved = Some(self.checkpoint.clone()),
            Err(error) => tracing::error!(
                pod = self.uid,
                error = report(&error),
                "a pod's state cannot be kept"
            ),
        }
    }

    fn tell(&self, notice: Notice) {
        self.surroundings.outbox.event(&self.checkpoint.pod, notice);
    }

    /// Removes what is left of containers whose end is recorded.
    async fn tidy(&self) {
        let Some(observation) = self.surroundings.machine.observe(&self.uid) else {
            return;
        };
        for container in observation
            .containers
            .iter()
            .filter(|container| container.finished.is_some())
        {
            let past = self.checkpoint.history.container(&container.name);
            let is_recorded = past
                .run
                .as_ref()
                .is_none_or(|run| run.id != container.id || run.finished.is_some());
            if !is_recorded || !observation.is_alive {
                continue;
            }
            if let Err(error) = self
                .surroundings
                .machine
                .remove_container(&self.uid, &container.id)
                .await
            {
                tracing::warn!(
                    pod = self.uid,
                    container = container.id,
                    error = report(&error),
                    "leftovers stay"
                );
            }
        }
    }

    async fn wait(&mut self, limit: Option<Instant>, shutdown: &CancellationToken) -> Woken {
        let Self {
            changes,
            desired,
            tending,
            pulls,
            ..
        } = self;
        let changed = async move {
            if let Some(changes) = changes
                && changes.changed().await.is_ok()
            {
                return;
            }
            // A closed channel is that of a sandbox which was destroyed; nothing more comes from it.
            std::future::pending().await
        };
        let timer = async {
            match limit {
                Some(limit) => tokio::time::sleep_until(limit).await,
                None => std::future::pending().await,
            }
        };
        // Every arm only waits: whichever is dropped, the loop reads the state anew.
        tokio::select! {
            () = shutdown.cancelled() => Woken::Shutdown,
            changed = desired.changed() => if changed.is_ok() { Woken::Again } else { Woken::Shutdown },
            () = changed => Woken::Again,
            // A pull that has ended is taken out in the same moment.
            Some(end) = pulls.join_next() => Woken::Pulled(end),
            () = timer => Woken::Again,
            report = tending.report() => Woken::Report(report),
        }
    }

    /// Tells that the pod is gone and, once the leader knows, forgets it.
    async fn finish(&mut self, shutdown: &CancellationToken) {
        let pod = &self.checkpoint.pod;
        let logs = self.surroundings.log_dir(pod);
        self.surroundings.gone.keep(pod, &self.checkpoint.history, &logs);
        let folder = self.surroundings.files_dir.join(&self.uid);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), error = report(&error), "a pod's files stay");
            }
            _ => {}
        }
        // Of a static pod the mirror is given up once this worker has ended.
        if !self.checkpoint.history.removed && !is_static(pod) {
            self.surroundings.outbox.gone(pod);
            // Both arms only wait. A shutdown leaves the checkpoint, so the next agent tells it again.
            tokio::select! {
                () = shutdown.cancelled() => return,
                removed = self.desired.wait_for(|desired| desired.is_removed) => if removed.is_err() { return },
            }
        }
        self.surroundings.outbox.forget(&self.uid);
        if let Err(error) = self.surroundings.checkpoints.remove(&self.uid) {
            tracing::warn!(pod = self.uid, error = report(&error), "a pod's checkpoint stays");
        }
    }

    fn container(&self, name: &str) -> Option<Container> {
        find_container(&self.checkpoint.pod, name)
    }
}

/// Whether requests are to begin or cease to reach the pod, which cannot wait.
fn is_flip(before: &PodStatus, after: &PodStatus) -> bool {
    let is_ready = |status: &PodStatus| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    is_ready(before) != is_ready(after)
}

/// Whether two statuses read the same; times are told in whole seconds.
fn is_same(one: &PodStatus, other: &PodStatus) -> bool {
    let json = |status: &PodStatus| serde_json::to_value(status).expect("a status is plain data");
    one == other || json(one) == json(other)
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}
