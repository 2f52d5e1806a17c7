//! Says of ingresses where they are served and what is wrong with them; the nodes' proxies serve them.
//!
//! Touches ingresses of our controller's classes only. One that is given another class keeps its status: that is the
//! business of whoever looks after the class.

mod class;
mod plan;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_api::ingresses;
use flotilla_resources::{Cache, CacheEvent, EventType, Part};
use flotilla_store::Revision;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use crate::context::{Context, now, revision_of, settle};
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};

use plan::{Problem, Surroundings};

const COMPONENT: &str = "ingress-controller";
/// What belongs together is often applied in one go, the ingress first: a new one is given this long to become whole.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the controller knows.
struct Known {
    ctx: Arc<Context>,
    ingresses: Cache<Ingress>,
    classes: Cache<IngressClass>,
    secrets: Cache<Secret>,
}

/// Starts the controllers of ingresses and of their class.
pub(crate) async fn start(ctx: &Arc<Context>, runner: &Runner) {
    let replica = ctx.resources.replica();
    let known = Arc::new(Known {
        ctx: Arc::clone(ctx),
        ingresses: Cache::start(replica, &runner.tracker, &runner.shutdown),
        classes: Cache::start(replica, &runner.tracker, &runner.shutdown),
        secrets: Cache::start(replica, &runner.tracker, &runner.shutdown),
    });
    known.ingresses.synced().await;
    known.classes.synced().await;
    known.secrets.synced().await;
    let queue = Queue::new();
    feed(&known, &queue);
    let told = Mutex::default();
    runner.start(IngressController { known, told }, queue);
    class::start(ctx, runner);
}

fn feed(known: &Arc<Known>, queue: &Queue<ObjectKey>) {
    let own = queue.clone();
    known
        .ingresses
        .subscribe(move |event| own.add(ObjectKey::of(&**event.object())));
    let (all, ingresses) = (queue.clone(), known.ingresses.clone());
    known.classes.subscribe(move |_| add_all(&ingresses, None, &all));
    let (all, ingresses) = (queue.clone(), known.ingresses.clone());
    known.ctx.nodes.subscribe(move |event| {
        let is_same = matches!(event, CacheEvent::Modified { old, new }
            if plan::addresses([&**old].into_iter()) == plan::addresses([&**new].into_iter()));
        if !is_same {
            add_all(&ingresses, None, &all);
        }
    });
    let (near, ingresses) = (queue.clone(), known.ingresses.clone());
    known.ctx.services.subscribe(move |event| {
        let namespace = event.object().metadata.namespace.as_deref();
        add_all(&ingresses, namespace, &near);
    });
    let (near, ingresses) = (queue.clone(), known.ingresses.clone());
    known.secrets.subscribe(move |event| {
        let namespace = event.object().metadata.namespace.as_deref();
        add_all(&ingresses, namespace, &near);
    });
}

fn add_all(ingresses: &Cache<Ingress>, namespace: Option<&str>, queue: &Queue<ObjectKey>) {
    let found = ingresses.list(namespace).into_iter();
    found.for_each(|ingress| queue.add(ObjectKey::of(&*ingress)));
}

struct IngressController {
    known: Arc<Known>,
    /// What was said of each ingress, so that it is not said again at every change of something near it. A restart says
    /// it once more.
    told: Mutex<HashMap<ObjectKey, BTreeSet<Problem>>>,
}

impl Reconcile for IngressController {
    type Key = ObjectKey;
    const NAME: &'static str = "ingress-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let found = self.known.ingresses.get(&key.namespace, &key.name);
        let Some(ingress) = found.filter(|ingress| self.known.is_ours(ingress)) else {
            self.tell(key, None, BTreeSet::new());
            return Ok(Next::Wait);
        };
        self.publish(key).await?;
        let problems = plan::problems(&ingress, &*self.known);
        let left = patience_left(&ingress).filter(|_| !problems.is_empty());
        if let Some(left) = left {
            return Ok(Next::RecheckAfter(left));
        }
        self.tell(key, Some(&ingress), problems);
        Ok(Next::Wait)
    }
}

impl IngressController {
    /// Writes down where the ingress is served.
    async fn publish(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Known { ctx, ingresses, .. } = &*self.known;
        let nodes = ctx.nodes.list(None);
        let addresses = plan::addresses(nodes.iter().map(|node| &**node));
        let change = |ingress: &mut Ingress| plan::set_addresses(ingress, &addresses);
        let written = ctx
            .resources
            .modify(&key.namespace, &key.name, Part::Status, change)
            .await?;
        settle(ingresses, written.as_ref().map_or(Revision(0), revision_of)).await
    }

    /// Tells what is wrong, unless it was told before.
    fn tell(&self, key: &ObjectKey, ingress: Option<&Ingress>, problems: BTreeSet<Problem>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.remove(key).unwrap_or_default();
        if let Some(ingress) = ingress {
            for (reason, message) in problems.difference(&before) {
                let ctx = &self.known.ctx;
                ctx.event(COMPONENT, ingress, EventType::Warning, reason, message.clone());
            }
        }
        if !problems.is_empty() {
            told.insert(key.clone(), problems);
        }
    }
}

/// How long a new ingress may still be incomplete.
fn patience_left(ingress: &Ingress) -> Option<Duration> {
    let created = ingress.metadata.creation_timestamp.as_ref()?.0;
    let age = Duration::try_from(now().duration_since(created)).unwrap_or_default();
    PATIENCE.checked_sub(age).filter(|left| !left.is_zero())
}

impl Known {
    fn is_ours(&self, ingress: &Ingress) -> bool {
        let class = ingresses::class_name(ingress).and_then(|name| self.classes.get("", name));
        class.is_some_and(|class| ingresses::is_ours(&class))
    }
}

impl Surroundings for Known {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.ctx.services.get(namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(namespace, name)
    }
}
