//! Removes pods that nobody would: those of nodes that are gone, and the oldest of too many that have ended.

use std::sync::Arc;
use std::time::Duration;

use flotilla_api::{Reason, Status};
use flotilla_resources::{CacheEvent, DeleteOptions};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::context::{Context, unless_gone};
use crate::pods;
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};

/// Too many pods that have ended harm nobody for a while.
const FINISHED_RECHECK: Duration = Duration::from_secs(60);

/// Starts the controllers.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let queue = Queue::new();
    let feed = queue.clone();
    ctx.nodes.subscribe(move |event| {
        if let CacheEvent::Deleted(node) = event {
            feed.add(ObjectKey::of(&**node));
        }
    });
    let (feed, known) = (queue.clone(), Arc::downgrade(ctx));
    ctx.pods.subscribe(move |event| {
        let Some(ctx) = known.upgrade() else { return };
        let node = pods::node_name(event.object());
        if !node.is_empty() && ctx.nodes.get("", node).is_none() {
            feed.add(ObjectKey::cluster(node));
        }
    });
    runner.start(OrphanController { ctx: Arc::clone(ctx) }, queue);
    let queue = Queue::new();
    queue.add(ObjectKey::cluster("finished"));
    runner.start(FinishedController { ctx: Arc::clone(ctx) }, queue);
}

/// Keyed by the names of nodes that may be gone.
struct OrphanController {
    ctx: Arc<Context>,
}

impl Reconcile for OrphanController {
    type Key = ObjectKey;
    const NAME: &'static str = "pod-garbage-collector";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if self.ctx.nodes.get("", &key.name).is_some() {
            return Ok(Next::Wait);
        }
        // The cache of pods may be ahead of that of nodes, so absence is asked for where it is surely known.
        match self.ctx.resources.get_typed::<Node>("", &key.name).await {
            Ok(_) => return Ok(Next::Wait),
            Err(status) if status.reason == Reason::NotFound => {}
            Err(status) => return Err(status.into()),
        }
        let mut orphans = self.ctx.pods.list(None);
        orphans.retain(|pod| pods::node_name(pod) == key.name);
        remove(&self.ctx, &orphans).await?;
        Ok(Next::Wait)
    }
}

/// Has one key.
struct FinishedController {
    ctx: Arc<Context>,
}

impl Reconcile for FinishedController {
    type Key = ObjectKey;
    const NAME: &'static str = "finished-pod-collector";

    async fn reconcile(&self, _key: &ObjectKey) -> Result<Next, ReconcileError> {
        let mut finished = self.ctx.pods.list(None);
        finished.retain(|pod| pods::is_finished(pod) && !pods::is_deleting(pod));
        let surplus = finished.len().saturating_sub(self.ctx.options.finished_pods_max);
        if surplus > 0 {
            finished.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
            remove(&self.ctx, &finished[..surplus]).await?;
        }
        Ok(Next::RecheckAfter(FINISHED_RECHECK))
    }
}

/// Deletes pods at once: there is nobody left to end them with grace.
async fn remove(ctx: &Context, doomed: &[Arc<Pod>]) -> Result<(), Status> {
    let deletions = doomed.iter().map(|pod| async move {
        let key = ObjectKey::of(&**pod);
        let options = DeleteOptions {
            grace_seconds: Some(0),
            uid: pod.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        unless_gone(
            ctx.resources
                .delete_typed::<Pod>(&key.namespace, &key.name, &options)
                .await,
        )
        .map(drop)
    });
    join_all(deletions).await.into_iter().collect()
}
