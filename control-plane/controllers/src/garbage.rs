//! Deletes what nobody owns any more, and sees deletions through that wait for dependents.
//!
//! Never trusts the graph about absence: before an object goes, the absence of its owners is read from the store.

mod graph;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_api::{Kind, Object, Reason, Status, registry};
use flotilla_resources::{DeleteOptions, Part, Propagation, Resources, WriteOptions};
use flotilla_store::Stored;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::context::{Context, unless_gone};
use crate::follow::{self, Seen};
use crate::labels::remove_owner;
use crate::runner::{Next, Queue, Reconcile, ReconcileError, Runner};
use graph::{FOREGROUND, Graph, Node, ORPHAN};
use plan::{Owner, Verdict};

/// Starts the controller; `seen` is told of every object that is followed as well.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner, seen: impl Fn(&Seen) + Send + Sync + 'static) {
    let queue = Queue::new();
    let graph = Arc::new(Mutex::new(Graph::default()));
    let (feed, known) = (queue.clone(), Arc::clone(&graph));
    let listener: follow::Listener = Arc::new(move |news| {
        seen(&news);
        let mut graph = known.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned = match news {
            Seen::Present { kind, key, meta } => graph.observe(Node { kind, key, meta }),
            Seen::Gone { uid, .. } => graph.forget(&uid),
        };
        concerned.into_iter().for_each(|uid| feed.add(uid));
    });
    follow::start(ctx.resources.replica(), runner, &listener);
    runner.start(
        GarbageCollector {
            ctx: Arc::clone(ctx),
            graph,
            queue: queue.clone(),
        },
        queue,
    );
}

/// Keyed by uid.
struct GarbageCollector {
    ctx: Arc<Context>,
    graph: Arc<Mutex<Graph>>,
    queue: Queue<String>,
}

impl Reconcile for GarbageCollector {
    type Key = String;
    const NAME: &'static str = "garbage-collector";

    async fn reconcile(&self, uid: &String) -> Result<Next, ReconcileError> {
        let Some((node, dependents)) = self.look_up(uid) else {
            return Ok(Next::Wait);
        };
        // The graph may lag behind: what is decided is decided about the object as it is now.
        let Some((node, stored)) = self.live(&node).await? else {
            return Ok(Next::Wait);
        };
        let mut owners = Vec::new();
        for reference in &node.meta.owner_references {
            owners.push(self.owner(&node, reference).await?);
        }
        let dependents: Vec<&Node> = dependents.iter().collect();
        match plan::plan(&node, &owners, &dependents) {
            Verdict::Keep => {}
            Verdict::EndForeground => self.drop_finalizer(&node, FOREGROUND).await?,
            Verdict::AskDependents => {
                let waiting = dependents.iter().filter(|dependent| !dependent.is_deleting());
                waiting.for_each(|dependent| self.queue.add(dependent.meta.uid.clone()));
            }
            Verdict::Orphan => self.orphan(&node, &dependents).await?,
            Verdict::DropOwners(uids) => self.drop_owners(&node, &uids).await?,
            Verdict::Delete(propagation) => self.delete(&node, &stored, propagation).await?,
        }
        Ok(Next::Wait)
    }
}

impl GarbageCollector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, uid: &str) -> Option<(Node, Vec<Node>)> {
        let graph = self.graph();
        let node = graph.get(uid)?.clone();
        Some((node, graph.dependents(uid).into_iter().cloned().collect()))
    }

    /// The object as it is now, if it is still the same one.
    async fn live(&self, node: &Node) -> Result<Option<(Node, Arc<Stored>)>, Status> {
        let found = self
            .ctx
            .resources
            .get(node.kind, &node.key.namespace, &node.key.name)
            .await;
        let Some(stored) = unless_gone(found)? else {
            return Ok(None);
        };
        let meta = follow::meta_of(&stored).filter(|meta| meta.uid == node.meta.uid);
        Ok(meta.map(|meta| (Node { meta, ..node.clone() }, stored)))
    }

    /// What there is of an owner. Owners of kinds that nobody knows are left alone, and so is what they own.
    async fn owner(&self, node: &Node, reference: &OwnerReference) -> Result<Owner, Status> {
        let Some(kind) = kind_of(reference) else {
            return Ok(Owner::Solid);
        };
        let namespace = if kind.namespaced { &*node.key.namespace } else { "" };
        let found = unless_gone(self.ctx.resources.get(kind, namespace, &reference.name).await)?;
        let meta = found
            .as_deref()
            .and_then(follow::meta_of)
            .filter(|meta| meta.uid == reference.uid);
        Ok(match meta {
            None => Owner::Absent,
            Some(meta) => {
                let owner = Node {
                    kind,
                    key: node.key.clone(),
                    meta,
                };
                if owner.waits_for_dependents() {
                    Owner::Waiting
                } else {
                    Owner::Solid
                }
            }
        })
    }

    async fn delete(&self, node: &Node, stored: &Stored, propagation: Propagation) -> Result<(), Status> {
        let options = DeleteOptions {
            propagation: Some(propagation),
            uid: Some(node.meta.uid.clone()),
            resource_version: Some(stored.modified.to_string()),
            ..DeleteOptions::default()
        };
        let outcome = self
            .ctx
            .resources
            .delete(node.kind, &node.key.namespace, &node.key.name, &options)
            .await;
        unless_gone(outcome).map(drop)
    }

    /// Lets all dependents go, and then the object itself.
    async fn orphan(&self, node: &Node, dependents: &[&Node]) -> Result<(), Status> {
        let releases = dependents
            .iter()
            .map(|dependent| self.drop_owners(dependent, std::slice::from_ref(&node.meta.uid)));
        join_all(releases)
            .await
            .into_iter()
            .collect::<Result<(), Status>>()?;
        self.drop_finalizer(node, ORPHAN).await
    }

    async fn drop_owners(&self, node: &Node, owners: &[String]) -> Result<(), Status> {
        alter(&self.ctx.resources, node, |meta| {
            owners.iter().filter(|owner| remove_owner(meta, owner)).count() > 0
        })
        .await
    }

    async fn drop_finalizer(&self, node: &Node, name: &str) -> Result<(), Status> {
        alter(&self.ctx.resources, node, |meta| {
            let Some(finalizers) = &mut meta.finalizers else {
                return false;
            };
            let before = finalizers.len();
            finalizers.retain(|finalizer| finalizer != name);
            finalizers.len() != before
        })
        .await
    }
}

/// Changes the metadata of an object of any kind. A conflict means later.
async fn alter(
    resources: &Resources,
    node: &Node,
    change: impl FnOnce(&mut ObjectMeta) -> bool,
) -> Result<(), Status> {
    let (namespace, name) = (&*node.key.namespace, &*node.key.name);
    let Some(stored) = unless_gone(resources.get(node.kind, namespace, name).await)? else {
        return Ok(());
    };
    let mut object: Box<dyn Object> = node.kind.decode_stored(&stored.json)?;
    let same = object.meta().uid.as_deref() == Some(&*node.meta.uid);
    if !same || !change(object.meta_mut()) {
        return Ok(());
    }
    let outcome = resources
        .update(
            node.kind,
            namespace,
            name,
            object,
            Part::Whole,
            &WriteOptions::default(),
        )
        .await;
    match outcome {
        Err(status) if status.reason == Reason::NotFound => Ok(()),
        other => other.map(drop),
    }
}

fn kind_of(reference: &OwnerReference) -> Option<&'static Kind> {
    let (group, version) = reference
        .api_version
        .split_once('/')
        .unwrap_or(("", &reference.api_version));
    registry().by_kind(group, version, &reference.kind)
}
