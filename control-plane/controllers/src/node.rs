//! Watches over nodes: says when one is silent, keeps new pods from it, and evicts its pods after a while.
//!
//! *Guarantees*: after a change of leadership every node gets its full grace before it is called silent. Pods of a
//! node that has gone silent are called unready before the node is tainted, and ready again before it is not, so that
//! a reconcile that dies in between is repeated whole.

mod eviction;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_api::Status;
use flotilla_resources::{CacheEvent, DeleteOptions, EventType, Part};
use flotilla_store::Revision;
use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::context::{self, Context, later, revision_of, settle, unless_gone};
use crate::pods;
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};
use eviction::Stay;
use plan::{Heard, Readiness};

/// Whether the node says that it is well, and is heard.
pub(crate) fn is_ready(node: &Node) -> bool {
    plan::readiness(node) == Readiness::Ready
}

const COMPONENT: &str = "node-controller";
/// How often a silent node is looked at: pods may still reach it from a scheduler that did not know.
const SILENT_RECHECK: Duration = Duration::from_millis(500);
/// Pods of one node that are written at once.
const WRITES_MAX: usize = 64;

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let queue = Queue::new();
    let feed = queue.clone();
    ctx.nodes.subscribe(move |event| {
        if !matches!(event, CacheEvent::Deleted(_)) {
            feed.add(ObjectKey::of(&**event.object()));
        }
    });
    let (mut changed, known, feed) = (ctx.liveness.changed(), Arc::downgrade(ctx), queue.clone());
    let shutdown = runner.shutdown.clone();
    runner.tracker.spawn(async move {
        loop {
            // Dropping either arm loses nothing: both only wait.
            tokio::select! {
                () = shutdown.cancelled() => return,
                news = changed.changed() => if news.is_err() { return },
            }
            let Some(ctx) = known.upgrade() else { return };
            let unwell = ctx
                .nodes
                .list(None)
                .into_iter()
                .filter(|node| plan::readiness(node) != Readiness::Ready);
            unwell.for_each(|node| feed.add(ObjectKey::of(&*node)));
        }
    });
    runner.start(NodeController { ctx: Arc::clone(ctx) }, queue);
}

struct NodeController {
    ctx: Arc<Context>,
}

impl Reconcile for NodeController {
    type Key = ObjectKey;
    const NAME: &'static str = COMPONENT;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(node) = self.ctx.nodes.get("", &key.name) else {
            return Ok(Next::Wait);
        };
        let (heard, again) = self.listen(&key.name);
        let now = context::now();
        let mut wanted = (*node).clone();
        let conditions_change = plan::set_conditions(&mut wanted, heard, context::stamp(now));
        let taints_change = plan::set_taints(&mut wanted, context::stamp(now));
        let well = plan::readiness(&wanted) == Readiness::Ready;
        let was_well = plan::readiness(&node) == Readiness::Ready && !taints_change;
        if !(well && was_well) {
            self.mark_pods(&wanted, well).await?;
        }
        self.write(&node, wanted.clone(), conditions_change, taints_change)
            .await?;
        let evicting = self.evict(&wanted, now).await?;
        let again = [Some(again), evicting]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(again);
        Ok(Next::RecheckAfter(again))
    }
}

impl NodeController {
    /// Whether the node is heard, and when to look again.
    fn listen(&self, name: &str) -> (Heard, Duration) {
        let last = self.ctx.liveness.last_heard(name);
        let last = last.map_or(self.ctx.leading_since, |last| last.max(self.ctx.leading_since));
        let silent = Instant::now().saturating_duration_since(last);
        match self.ctx.options.node_silence.checked_sub(silent) {
            None | Some(Duration::ZERO) => (Heard::Silent, SILENT_RECHECK),
            Some(left) => (Heard::Lately, left),
        }
    }

    async fn write(
        &self,
        before: &Node,
        mut node: Node,
        conditions: bool,
        taints: bool,
    ) -> Result<(), ReconcileError> {
        let mut written = Revision(0);
        if conditions {
            let outcome = unless_gone(self.ctx.resources.update_status_typed(node.clone()).await)?;
            let Some(updated) = outcome else { return Ok(()) };
            later(&mut written, revision_of(&updated));
            node.metadata.resource_version = updated.metadata.resource_version;
            self.tell(before, &node);
        }
        if taints {
            let outcome = unless_gone(self.ctx.resources.update_typed(node).await)?;
            later(&mut written, outcome.as_ref().map_or(Revision(0), revision_of));
        }
        settle(&self.ctx.nodes, written).await
    }

    fn tell(&self, before: &Node, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let (was, is) = (plan::readiness(before), plan::readiness(node));
        if was == is {
            return;
        }
        let reason = if is == Readiness::Ready {
            "NodeReady"
        } else {
            "NodeNotReady"
        };
        let message = format!("Node {name} status is now: {reason}");
        tracing::info!(node = name, reason, "a node's readiness changed");
        self.ctx
            .event(COMPONENT, node, EventType::Normal, reason, message);
    }

    fn pods_on(&self, node: &Node) -> Vec<Arc<Pod>> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut all = self.ctx.pods.list(None);
        all.retain(|pod| pods::node_name(pod) == name);
        all
    }

    /// Calls the node's pods unready, or ready again where that was our word.
    async fn mark_pods(&self, node: &Node, well: bool) -> Result<(), ReconcileError> {
        if plan::readiness(node) == Readiness::NotReady {
            // The node itself is there and answers for its pods.
            return Ok(());
        }
        let pods = self.pods_on(node);
        let changing = pods
            .into_iter()
            .filter(|pod| set_ready(&mut (**pod).clone(), well, context::now()));
        let writes = stream::iter(changing)
            .map(|pod| self.mark_pod(pod, well))
            .buffer_unordered(WRITES_MAX);
        let outcomes: Vec<Result<Revision, Status>> = writes.collect().await;
        let mut written = Revision(0);
        for outcome in outcomes {
            later(&mut written, outcome?);
        }
        settle(&self.ctx.pods, written).await
    }

    async fn mark_pod(&self, pod: Arc<Pod>, well: bool) -> Result<Revision, Status> {
        let key = ObjectKey::of(&*pod);
        let now = context::stamp(context::now());
        let change = |found: &mut Pod| found.metadata.uid == pod.metadata.uid && set_ready(found, well, now);
        let changed = self
            .ctx
            .resources
            .modify::<Pod>(&key.namespace, &key.name, Part::Status, change)
            .await?;
        if changed.is_some() && !well {
            self.ctx.event(
                COMPONENT,
                &*pod,
                EventType::Warning,
                "NodeNotReady",
                "Node is not ready".to_owned(),
            );
        }
        Ok(changed.as_ref().map_or(Revision(0), revision_of))
    }

    /// Deletes the pods whose time on the node is over; tells when the next one's is.
    async fn evict(&self, node: &Node, now: Timestamp) -> Result<Option<Duration>, ReconcileError> {
        let taints = eviction::driving(node);
        if taints.is_empty() {
            return Ok(None);
        }
        let (mut next, mut doomed) = (None::<Duration>, Vec::new());
        for pod in self.pods_on(node) {
            match eviction::stay(&pod, &taints, self.ctx.options.toleration_seconds, now) {
                Stay::ForEver => {}
                Stay::For(left) => next = Some(next.map_or(left, |next| next.min(left))),
                Stay::Over => doomed.push(pod),
            }
        }
        let evictions = stream::iter(doomed)
            .map(|pod| self.evict_pod(pod))
            .buffer_unordered(WRITES_MAX);
        let outcomes: Vec<Result<(), Status>> = evictions.collect().await;
        outcomes.into_iter().collect::<Result<(), Status>>()?;
        Ok(next)
    }

    async fn evict_pod(&self, pod: Arc<Pod>) -> Result<(), Status> {
        let key = ObjectKey::of(&*pod);
        let now = context::stamp(context::now());
        let note = |found: &mut Pod| {
            found.metadata.uid == pod.metadata.uid
                && pods::set_condition(
                    found.status.get_or_insert_default(),
                    "DisruptionTarget",
                    "True",
                    Some("DeletionByTaintManager"),
                    Some("Taint manager: deleting due to NoExecute taint".to_owned()),
                    now,
                )
        };
        self.ctx
            .resources
            .modify::<Pod>(&key.namespace, &key.name, Part::Status, note)
            .await?;
        let options = DeleteOptions {
            uid: pod.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        if unless_gone(
            self.ctx
                .resources
                .delete_typed::<Pod>(&key.namespace, &key.name, &options)
                .await,
        )?
        .is_some()
        {
            let message = format!("Marking for deletion Pod {key}");
            self.ctx.event(
                "taint-eviction-controller",
                &*pod,
                EventType::Normal,
                "TaintManagerEviction",
                message,
            );
        }
        Ok(())
    }
}

/// Sets the pod's `Ready` condition as its node's silence or return has it. Says whether that changed anything.
fn set_ready(pod: &mut Pod, well: bool, now: Timestamp) -> bool {
    let ready = pods::condition(pod, "Ready");
    let by_us = ready.is_some_and(|ready| ready.reason.as_deref() == Some(pods::NODE_NOT_READY));
    let containers =
        pods::condition(pod, "ContainersReady").is_some_and(|containers| containers.status == "True");
    let is_ready = ready.is_some_and(|ready| ready.status == "True");
    let status = pod.status.get_or_insert_default();
    match well {
        false if is_ready => {
            pods::set_condition(status, "Ready", "False", Some(pods::NODE_NOT_READY), None, now)
        }
        true if by_us && containers => pods::set_condition(status, "Ready", "True", None, None, now),
        _ => false,
    }
}
