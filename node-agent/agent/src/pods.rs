//! All pods of this node: one worker each, fed by the session with the leading server.
//!
//! Only the session that began the newest sync of the newest term is listened to; what an older one still says is ignored.
//! Static pods have workers as well, which no session ends.

mod statics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use flotilla_api::static_pods;
use flotilla_lifecycle::admission::{self, Room};
use flotilla_lifecycle::{Ended, History, Notice, References, Sandbox};
use flotilla_proto::node::{PodAssignment, PodRemoved, Reference};
use flotilla_report::report;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checkpoint::Checkpoint;
use crate::policies::own_address;
use crate::worker::{Surroundings, Worker};
pub(crate) use statics::{StaticPod, full_name};

/// What a pod should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    pub(crate) references: Arc<References>,
    /// The object is gone.
    pub(crate) is_removed: bool,
    /// The node itself has ended the pod.
    pub(crate) ended: Option<Ended>,
}

/// What a pod is, for readers.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodView {
    pub(crate) pod: Arc<Pod>,
    pub(crate) history: History,
    pub(crate) status: PodStatus,
}

/// Why an assignment was not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssignError {
    #[error("the assigned pod is not valid JSON")]
    Pod(#[source] serde_json::Error),
    #[error("the {kind} {name} is not valid JSON")]
    Reference {
        kind: String,
        name: String,
        source: serde_json::Error,
    },
    #[error("the assigned pod has no uid")]
    NoUid,
}

/// The table of workers.
pub(crate) struct Pods {
    surroundings: Arc<Surroundings>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    inner: Mutex<Inner>,
    static_ended: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    workers: BTreeMap<String, Entry>,
    /// The mirrors of static pods, by their own uids.
    mirrors: BTreeMap<String, Arc<Pod>>,
    /// The session that is listened to.
    source: Option<u64>,
    /// The newest term in which a server has led.
    term: u64,
    /// Uids seen since the sync began.
    syncing: Option<BTreeSet<String>>,
}

struct Entry {
    desired: watch::Sender<Desired>,
    view: watch::Receiver<PodView>,
}

impl Pods {
    pub(crate) fn new(
        surroundings: Arc<Surroundings>,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            surroundings,
            tracker,
            shutdown,
            inner: Mutex::default(),
            static_ended: Arc::default(),
        }
    }

    /// Goes on with the pods of an earlier agent. Sandboxes that no checkpoint knows are taken down.
    pub(crate) async fn restore(&self) {
        let machine = &self.surroundings.machine;
        let mut found: BTreeSet<String> = machine.adopt().await.into_iter().collect();
        for (uid, checkpoint) in self.surroundings.checkpoints.load() {
            found.remove(&uid);
            tracing::info!(pod = %flotilla_lifecycle::pod_label(&checkpoint.pod), "taking over a pod");
            // The rules of the kernel are taken over only when all these are known.
            if checkpoint.history.sandbox == Sandbox::Ready
                && let Some(address) = own_address(&checkpoint.pod, &checkpoint.history.addresses)
            {
                let policies = machine.policies();
                policies.change(|model| model.local_pod(&uid, &checkpoint.pod, address));
            }
            self.start(&mut self.lock(), uid, checkpoint);
        }
        for uid in found {
            tracing::warn!(uid, "taking down a sandbox that belongs to no pod");
            if let Err(error) = machine.remove_sandbox(&uid).await {
                tracing::warn!(
                    uid,
                    error = report(&error),
                    "a sandbox that belongs to no pod stays"
                );
                continue;
            }
            if let Err(error) = machine.remove_volumes(&uid).await {
                tracing::warn!(uid, error = report(&error), "volumes that belong to no pod stay");
            }
        }
    }

    /// What follows on this session until [`Pods::end_sync`] is everything.
    ///
    /// A server that has been deposed may not know it yet and sync later than its successor: the newer term counts.
    pub(crate) fn begin_sync(&self, session: u64, term: u64) {
        let mut inner = self.lock();
        if term < inner.term {
            return;
        }
        inner.term = term;
        inner.source = Some(session);
        inner.syncing = Some(BTreeSet::new());
    }

    /// Pods that the leader did not name are ended; all others are reported where the leader knows them differently.
    /// From now on this session is told what happens. False when another one is listened to.
    pub(crate) fn end_sync(&self, session: u64) -> bool {
        let mut inner = self.lock();
        if inner.source != Some(session) {
            return false;
        }
        if let Some(named) = inner.syncing.take() {
            let is_own = |entry: &Entry| static_pods::is_static(&entry.desired.borrow().pod);
            let all = inner.workers.iter();
            for (uid, entry) in all.filter(|(uid, entry)| !named.contains(*uid) && !is_own(entry)) {
                tracing::info!(uid, "the control plane no longer knows a pod");
                remove(entry);
            }
            self.mirrors_named(&mut inner, &named);
        }
        // Still under the lock, so that no newer session is overtaken.
        self.surroundings.outbox.open(session);
        true
    }

    /// A pod is to run here, or has changed.
    pub(crate) fn assign(&self, session: u64, assignment: PodAssignment) -> Result<(), AssignError> {
        let pod: Pod = serde_json::from_slice(&assignment.pod_json).map_err(AssignError::Pod)?;
        let references = references(assignment.references)?;
        let uid = pod.metadata.uid.clone().ok_or(AssignError::NoUid)?;
        let mut inner = self.lock();
        if inner.source != Some(session) {
            return Ok(());
        }
        let is_sync = inner
            .syncing
            .as_mut()
            .map(|named| named.insert(uid.clone()))
            .is_some();
        if static_pods::is_mirror(&pod) {
            self.mirror(&mut inner, uid, pod);
            return Ok(());
        }
        let known = pod.status.clone().unwrap_or_default();
        let Some(entry) = inner.workers.get(&uid).filter(|entry| !entry.desired.is_closed()) else {
            let checkpoint = Checkpoint {
                status: known,
                config_maps: references.config_maps,
                secrets: references.secrets,
                claims: references.claims,
                volumes: references.volumes,
                history: History {
                    ended: self.rejection(&inner, &pod),
                    ..History::default()
                },
                pod: essence(pod),
            };
            self.start(&mut inner, uid, checkpoint);
            return Ok(());
        };
        if is_sync {
            self.report_difference(entry, &known);
        }
        let desired = Desired {
            pod: Arc::new(essence(pod)),
            references: Arc::new(references),
            is_removed: false,
            ended: entry.desired.borrow().ended.clone(),
        };
        entry.desired.send_if_modified(|before| {
            let is_news = before.pod != desired.pod || before.references != desired.references;
            if is_news {
                *before = desired;
            }
            is_news
        });
        Ok(())
    }

    fn report_difference(&self, entry: &Entry, known: &PodStatus) {
        let view = entry.view.borrow();
        let own =
            serde_json::to_vec(&view.status).and_then(|json| serde_json::from_slice::<PodStatus>(&json));
        if view.status.phase.is_some() && own.ok().as_ref() != Some(known) {
            self.surroundings
                .outbox
                .status(&view.pod, view.status.clone(), std::time::Duration::ZERO);
        }
    }

    /// The pod's object is gone.
    pub(crate) fn removed(&self, session: u64, pod: &PodRemoved) {
        let mut inner = self.lock();
        if inner.source != Some(session) {
            return;
        }
        self.surroundings.outbox.forget(&pod.uid);
        self.mirror_gone(&mut inner, &pod.uid);
        if let Some(entry) = inner.workers.get(&pod.uid) {
            remove(entry);
        }
    }

    /// The leader knows that the pod has ended: nothing of it needs to be remembered.
    pub(crate) fn ended(&self, uid: &str) {
        let mut inner = self.lock();
        self.mirror_gone(&mut inner, uid);
        if let Some(entry) = inner.workers.get(uid) {
            remove(entry);
        }
    }

    /// The present and future state of a pod, or of the static pod of which this is the mirror.
    pub(crate) fn view(&self, uid: &str) -> Option<watch::Receiver<PodView>> {
        let inner = self.lock();
        let of_mirror = inner.mirrors.get(uid).and_then(|pod| static_pods::mirror_of(pod));
        Some(inner.workers.get(of_mirror.unwrap_or(uid))?.view.clone())
    }

    /// What a pod refers to.
    pub(crate) fn references(&self, uid: &str) -> Option<Arc<References>> {
        let inner = self.lock();
        let references = inner.workers.get(uid)?.desired.borrow().references.clone();
        Some(references)
    }

    /// Whether anything of a pod's volumes is on this node.
    pub(crate) fn has_volumes(&self, uid: &str) -> bool {
        let inner = self.lock();
        let entry = inner.workers.get(uid);
        entry.is_some_and(|entry| entry.view.borrow().history.volumes.is_present())
    }

    /// The state of all pods.
    pub(crate) fn views(&self) -> Vec<PodView> {
        let inner = self.lock();
        inner
            .workers
            .values()
            .map(|entry| entry.view.borrow().clone())
            .collect()
    }

    /// The node itself ends a pod.
    pub(crate) fn end(&self, uid: &str, ended: Ended) {
        if let Some(entry) = self.lock().workers.get(uid) {
            entry.desired.send_modify(|desired| {
                desired.ended.get_or_insert(ended);
            });
        }
    }

    /// Why the node cannot take a pod that is new here. One that ran before, for another agent, is taken in any case.
    fn rejection(&self, inner: &Inner, pod: &Pod) -> Option<Ended> {
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let began = status.is_some_and(|status| status.container_statuses.is_some());
        if pod.metadata.deletion_timestamp.is_some() || began || !matches!(phase, None | Some("Pending")) {
            return None;
        }
        let there: Vec<Arc<Pod>> = inner.workers.values().filter_map(active).collect();
        let there: Vec<&Pod> = there.iter().map(|pod| &**pod).collect();
        let room = Room {
            allocatable: &self.surroundings.allocatable,
            pressures: *self.surroundings.pressures.borrow(),
            permits: &self.surroundings.permits,
            pods: &there,
        };
        let rejection = admission::admit(pod, &room).err()?;
        tracing::warn!(pod = %flotilla_lifecycle::pod_label(pod), reason = rejection.reason, "a pod is not taken");
        let notice = Notice::rejected(&rejection);
        self.surroundings.outbox.event(pod, notice);
        Some(Ended {
            reason: rejection.reason,
            message: rejection.message,
            grace_seconds: 0,
            is_disruption: false,
        })
    }

    fn start(&self, inner: &mut Inner, uid: String, checkpoint: Checkpoint) {
        let desired = Desired {
            pod: Arc::new(checkpoint.pod.clone()),
            references: Arc::new(checkpoint.references()),
            is_removed: checkpoint.history.removed,
            ended: checkpoint.history.ended.clone(),
        };
        let ended = static_pods::is_static(&checkpoint.pod).then(|| self.static_ended.clone());
        if ended.is_some() {
            // Nothing may be told about it under its own uid.
            self.surroundings.outbox.shown_by(&uid, None);
        }
        let (desired, desired_rx) = watch::channel(desired);
        let (view, view_rx) = watch::channel(PodView::default());
        let worker = Worker::new(
            self.surroundings.clone(),
            uid.clone(),
            desired_rx,
            view,
            checkpoint,
        );
        inner.workers.retain(|_, entry| !entry.desired.is_closed());
        inner.workers.insert(
            uid,
            Entry {
                desired,
                view: view_rx,
            },
        );
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move {
            worker.run(shutdown).await;
            if let Some(ended) = ended {
                ended.notify_one();
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

/// The pod, if it still has a right to what it asked for.
fn active(entry: &Entry) -> Option<Arc<Pod>> {
    let desired = entry.desired.borrow();
    let view = entry.view.borrow();
    let is_over = matches!(view.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let is_gone = desired.is_removed || view.history.sandbox == Sandbox::Removed;
    (!is_over && !is_gone && desired.ended.is_none()).then(|| desired.pod.clone())
}

fn remove(entry: &Entry) {
    entry
        .desired
        .send_if_modified(|desired| !std::mem::replace(&mut desired.is_removed, true));
}

/// The pod without what the agent itself writes, so that its own reports coming back are no news, and without any claim
/// to be a static one.
fn essence(mut pod: Pod) -> Pod {
    const OWN: [&str; 6] = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodResizePending",
        "PodResizeInProgress",
    ];
    pod.metadata.resource_version = None;
    pod.metadata.managed_fields = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.remove(static_pods::SOURCE);
    }
    let conditions = pod
        .status
        .take()
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let foreign: Vec<_> = conditions
        .into_iter()
        .filter(|condition| !OWN.contains(&condition.type_.as_str()))
        .collect();
    if !foreign.is_empty() {
        pod.status = Some(PodStatus {
            conditions: Some(foreign),
            ..PodStatus::default()
        });
    }
    pod
}

fn references(list: Vec<Reference>) -> Result<References, AssignError> {
    let mut references = References::default();
    for Reference {
        kind,
        name,
        object_json,
    } in list
    {
        let wrap = |source| AssignError::Reference {
            kind: kind.clone(),
            name: name.clone(),
            source,
        };
        match kind.as_str() {
            "ConfigMap" => {
                references
                    .config_maps
                    .insert(name.clone(), serde_json::from_slice(&object_json).map_err(wrap)?);
            }
            "Secret" => {
                references
                    .secrets
                    .insert(name.clone(), serde_json::from_slice(&object_json).map_err(wrap)?);
            }
            "PersistentVolumeClaim" => {
                references
                    .claims
                    .insert(name.clone(), serde_json::from_slice(&object_json).map_err(wrap)?);
            }
            "PersistentVolume" => {
                references
                    .volumes
                    .insert(name.clone(), serde_json::from_slice(&object_json).map_err(wrap)?);
            }
            other => tracing::debug!(
                kind = other,
                "a pod refers to a kind that this agent does not know"
            ),
        }
    }
    Ok(references)
}
