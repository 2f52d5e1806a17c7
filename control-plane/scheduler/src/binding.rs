//! The scheduling loop: takes in changes, places pods, binds them in batches.
//!
//! Placing is done in one thread on the in-memory table; a pod that was placed counts on its node at once (it is
//! *assumed*), so that the next one sees it. Bindings are proposed a batch at a time while the loop goes on.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use flotilla_api::Status;
use flotilla_report::report;
use flotilla_resources::{Binding, Cache, CacheEvent, Resources, TypedObject};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::Cluster;
use crate::place::{self, Placement};
use crate::queue::{Hopes, News, PodKey, Queue};
use crate::report::{self, Reports};
use crate::settling;
use crate::storage::{Needs, Settlement};

const SCHEDULER_NAME: &str = "default-scheduler";
/// Pods that one proposal binds at most: enough to be cheap per pod, few enough that the first need not wait long.
const BATCH_MAX: usize = 128;
/// Proposals under way at once. Pods that come meanwhile gather into the next batch.
const BATCHES_MAX: usize = 4;

/// What the loop is told. The channel is unbounded because cache handlers must not block; its content is bounded by
/// the number of pods and nodes.
enum Told {
    Pod(CacheEvent<Pod>),
    Node(CacheEvent<Node>),
    Claim(CacheEvent<PersistentVolumeClaim>),
    Volume(CacheEvent<PersistentVolume>),
    Class(CacheEvent<StorageClass>),
    Bound(Vec<(Arc<Pod>, String, Result<(), Status>)>),
    /// A pod whose claims had to be settled first.
    Settled(Arc<Pod>, String, Result<(), Status>),
}

/// Schedules pods; ends only by being dropped, which ends all that it started.
pub(crate) async fn schedule(resources: Resources) {
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let _ends_with_us = shutdown.clone().drop_guard();
    let nodes = Cache::<Node>::start(resources.replica(), &tracker, &shutdown);
    let pods = Cache::<Pod>::start(resources.replica(), &tracker, &shutdown);
    nodes.synced().await;
    pods.synced().await;
    let claims = Cache::<PersistentVolumeClaim>::start(resources.replica(), &tracker, &shutdown);
    let volumes = Cache::<PersistentVolume>::start(resources.replica(), &tracker, &shutdown);
    let classes = Cache::<StorageClass>::start(resources.replica(), &tracker, &shutdown);
    claims.synced().await;
    volumes.synced().await;
    classes.synced().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    // Before the pods: none is placed without what its claims mean.
    let sender = tell.clone();
    classes.subscribe(move |event| drop(sender.send(Told::Class(event.clone()))));
    let sender = tell.clone();
    volumes.subscribe(move |event| drop(sender.send(Told::Volume(event.clone()))));
    let sender = tell.clone();
    claims.subscribe(move |event| drop(sender.send(Told::Claim(event.clone()))));
    let sender = tell.clone();
    nodes.subscribe(move |event| drop(sender.send(Told::Node(event.clone()))));
    let sender = tell.clone();
    pods.subscribe(move |event| drop(sender.send(Told::Pod(event.clone()))));
    let reports = report::start(&resources, &tracker, &shutdown);
    let mut scheduler = Scheduler {
        cluster: Cluster::default(),
        queue: Queue::default(),
        start: 0,
        pods,
        claims,
        resources,
        reports,
        tracker,
        tell,
        batches: 0,
        news: Vec::new(),
    };
    loop {
        while let Ok(news) = told.try_recv() {
            scheduler.take_in(news);
        }
        scheduler.wake();
        scheduler.place_batch();
        if scheduler.has_more_to_do() {
            continue;
        }
        let due = scheduler.queue.next_due();
        // Both arms only wait: nothing is lost by dropping them.
        let news = tokio::select! {
            news = told.recv() => news,
            () = sleep_until(due) => None,
        };
        news.into_iter().for_each(|news| scheduler.take_in(news));
    }
}

struct Scheduler {
    cluster: Cluster,
    queue: Queue,
    /// Where the search for nodes begins next time.
    start: usize,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    resources: Resources,
    reports: Reports,
    tracker: TaskTracker,
    tell: mpsc::UnboundedSender<Told>,
    /// Proposals under way.
    batches: usize,
    /// What happened since those were woken whom it could help.
    news: Vec<News>,
}

impl Scheduler {
    fn take_in(&mut self, news: Told) {
        match news {
            Told::Node(CacheEvent::Deleted(node)) => {
                self.cluster
                    .remove_node(node.metadata.name.as_deref().unwrap_or_default());
            }
            Told::Node(event) => {
                if self.cluster.set_node(Arc::clone(event.object())) {
                    self.note(News::Node);
                }
            }
            Told::Pod(CacheEvent::Deleted(pod)) => self.pod_gone(&pod),
            Told::Pod(event) => self.pod_seen(event.object(), &event),
            Told::Claim(event) => {
                let key = object_key(&**event.object());
                note_change(&mut self.cluster.storage.claims, key, &event);
                self.note(News::Storage);
            }
            Told::Volume(event) => {
                let (_, name) = object_key(&**event.object());
                note_change(&mut self.cluster.storage.volumes, name, &event);
                self.note(News::Storage);
            }
            Told::Class(event) => {
                let (_, name) = object_key(&**event.object());
                note_change(&mut self.cluster.storage.classes, name, &event);
                self.note(News::Storage);
            }
            Told::Bound(outcomes) => {
                self.batches -= 1;
                self.bound(outcomes);
            }
            Told::Settled(pod, node, outcome) => self.bound(vec![(pod, node, outcome)]),
        }
    }

    fn pod_gone(&mut self, pod: &Pod) {
        self.queue.remove(&key(pod));
        if self
            .cluster
            .remove_pod(pod.metadata.uid.as_deref().unwrap_or_default())
        {
            self.note(News::PodGone);
        }
    }

    fn pod_seen(&mut self, pod: &Pod, event: &CacheEvent<Pod>) {
        let node = node_name(pod);
        if is_finished(pod) {
            self.pod_gone(pod);
        } else if !node.is_empty() {
            self.queue.remove(&key(pod));
            if counts_anew(event) {
                self.cluster.add_pod(pod, node);
                self.note(News::PodPlaced);
            }
        } else if is_ours(pod) {
            let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
            self.queue.add(key(pod), priority);
            if let CacheEvent::Modified { old, new } = event
                && (old.spec != new.spec || old.metadata.labels != new.metadata.labels)
            {
                self.queue.retry(&key(pod), Instant::now());
            }
        } else {
            self.queue.remove(&key(pod));
        }
    }

    fn note(&mut self, news: News) {
        if !self.news.contains(&news) {
            self.news.push(news);
        }
    }

    fn has_more_to_do(&self) -> bool {
        !self.news.is_empty() || (self.queue.has_active() && self.batches < BATCHES_MAX)
    }

    /// Wakes those who wait for what happened.
    fn wake(&mut self) {
        for news in std::mem::take(&mut self.news) {
            self.queue.wake(news, Instant::now());
        }
    }

    /// Places some pods and has them bound.
    fn place_batch(&mut self) {
        if self.batches >= BATCHES_MAX {
            return;
        }
        let mut placed = Vec::new();
        for key in self.queue.take(BATCH_MAX, Instant::now()) {
            let Some(pod) = self.pods.get(&key.namespace, &key.name) else {
                self.queue.remove(&key);
                continue;
            };
            if !is_ours(&pod) || !node_name(&pod).is_empty() {
                self.queue.remove(&key);
                continue;
            }
            match place::place(&self.cluster, &pod, &mut self.start) {
                Placement::Node(node) => {
                    self.cluster.add_pod(&pod, &node);
                    self.note(News::PodPlaced);
                    match self.settlements(&pod, &node) {
                        settlements if settlements.is_empty() => placed.push((pod, node)),
                        settlements => self.settle(pod, node, settlements),
                    }
                }
                Placement::Nowhere(refusals) => {
                    let hopes = match &refusals.obstacle {
                        Some(_) => Hopes::of_storage(),
                        None => Hopes::of(refusals.counts.keys()),
                    };
                    self.queue.give_back_unplaced(&key, hopes, Instant::now());
                    self.reports.unplaced(&pod, &refusals);
                }
            }
        }
        if !placed.is_empty() {
            self.bind(placed);
        }
    }

    /// What has to be written down about the pod's claims before it can be bound.
    fn settlements(&self, pod: &Pod, node: &str) -> Vec<Settlement> {
        let storage = &self.cluster.storage;
        let needs = Needs::new(storage, pod);
        let node = self.cluster.node(node).and_then(|entry| entry.node.as_ref());
        // The node has just been checked, so it can have what the pod needs.
        node.filter(|_| needs.is_waiting())
            .and_then(|node| needs.settle(storage, node).ok())
            .unwrap_or_default()
    }

    /// Settles the pod's claims and then binds it. It counts on its node meanwhile, and holds up no other pod.
    fn settle(&mut self, pod: Arc<Pod>, node: String, settlements: Vec<Settlement>) {
        let (resources, claims, tell) = (self.resources.clone(), self.claims.clone(), self.tell.clone());
        self.tracker.spawn(async move {
            let outcome = settling::settle_and_bind(&resources, &claims, &pod, &node, &settlements).await;
            // The loop is gone only when nobody needs the answer.
            let _ = tell.send(Told::Settled(pod, node, outcome));
        });
    }

    fn bind(&mut self, placed: Vec<(Arc<Pod>, String)>) {
        self.batches += 1;
        let (resources, tell) = (self.resources.clone(), self.tell.clone());
        self.tracker.spawn(async move {
            let bindings = placed.iter().map(|(pod, node)| Binding {
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                name: pod.metadata.name.clone().unwrap_or_default(),
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                node: node.clone(),
            });
            let answers = resources.bind(bindings.collect()).await;
            let outcomes = placed
                .into_iter()
                .zip(answers)
                .map(|((pod, node), answer)| (pod, node, answer));
            // The loop is gone only when nobody needs the answer.
            let _ = tell.send(Told::Bound(outcomes.collect()));
        });
    }

    fn bound(&mut self, outcomes: Vec<(Arc<Pod>, String, Result<(), Status>)>) {
        for (pod, node, outcome) in outcomes {
            match outcome {
                Ok(()) => {
                    self.queue.remove(&key(&pod));
                    self.reports.bound(&pod, &node);
                }
                Err(status) => self.binding_failed(&pod, &node, &status),
            }
        }
    }

    /// Takes back what was assumed. The pod is tried again if it still needs a node.
    fn binding_failed(&mut self, pod: &Pod, node: &str, status: &Status) {
        let key = key(pod);
        tracing::debug!(object = %format_args!("{}/{}", key.namespace, key.name), node, error = report(status),
            "a pod could not be bound");
        let now = self.pods.get(&key.namespace, &key.name);
        let bound_elsewhere = now.as_ref().is_some_and(|now| {
            now.metadata.uid == pod.metadata.uid && !node_name(now).is_empty() && !is_finished(now)
        });
        if !bound_elsewhere {
            self.cluster
                .remove_pod(pod.metadata.uid.as_deref().unwrap_or_default());
        }
        match now.filter(|now| is_ours(now) && node_name(now).is_empty()) {
            Some(_) => self.queue.give_back_failed(&key, Instant::now()),
            None => self.queue.remove(&key),
        }
    }
}

/// Whether the change says anything new about where the pod is or what it takes there.
fn counts_anew(event: &CacheEvent<Pod>) -> bool {
    match event {
        CacheEvent::Modified { old, new } => {
            node_name(old) != node_name(new)
                || is_finished(old) != is_finished(new)
                || old.metadata.labels != new.metadata.labels
                || old.metadata.owner_references != new.metadata.owner_references
                || old.metadata.uid != new.metadata.uid
                || old.spec != new.spec
        }
        CacheEvent::Added(_) | CacheEvent::Deleted(_) => true,
    }
}

fn note_change<K: Eq + Hash, T: TypedObject>(known: &mut HashMap<K, Arc<T>>, key: K, event: &CacheEvent<T>) {
    match event {
        CacheEvent::Deleted(_) => known.remove(&key),
        event => known.insert(key, Arc::clone(event.object())),
    };
}

fn object_key<T: TypedObject>(object: &T) -> (String, String) {
    let meta = object.metadata();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn key(pod: &Pod) -> PodKey {
    PodKey {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    }
}

fn node_name(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod waits for this scheduler.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let named = spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME) == SCHEDULER_NAME;
    let gated = spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    named && !gated && pod.metadata.deletion_timestamp.is_none() && !is_finished(pod)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
