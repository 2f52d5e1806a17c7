//! Makes the class of ingresses that every cluster starts with.
//!
//! One that is there is never touched, so whoever takes its default mark away, or gives it another controller, is not
//! contradicted. One that was deleted comes back with the next leader, as the storage class does: to be without a default,
//! take its mark away.

use std::sync::Arc;

use flotilla_api::{Reason, ingresses};
use k8s_openapi::api::networking::v1::IngressClass;

use crate::context::{Context, unless_gone};
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};

/// Starts the controller; it is done once the class is there.
pub(super) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let queue = Queue::new();
    queue.add(ObjectKey::cluster(ingresses::CLASS));
    runner.start(IngressClassController { ctx: Arc::clone(ctx) }, queue);
}

struct IngressClassController {
    ctx: Arc<Context>,
}

impl Reconcile for IngressClassController {
    type Key = ObjectKey;
    const NAME: &'static str = "ingress-class-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let resources = &self.ctx.resources;
        let found = resources.get_typed::<IngressClass>("", &key.name).await;
        if unless_gone(found)?.is_some() {
            return Ok(Next::Wait);
        }
        match resources.create_typed(ingresses::flotilla_class()).await {
            Err(status) if status.reason != Reason::AlreadyExists => Err(status.into()),
            _ => Ok(Next::Wait),
        }
    }
}
