//! Makes the priority classes that every cluster has.

use std::sync::Arc;

use flotilla_api::{Reason, system_priority_classes};
use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::context::{Context, unless_gone};
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};

/// Starts the controller; it is done once the classes are there, for nobody can delete them.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let queue = Queue::new();
    for class in system_priority_classes() {
        queue.add(ObjectKey::of(&class));
    }
    runner.start(PriorityClassController { ctx: Arc::clone(ctx) }, queue);
}

struct PriorityClassController {
    ctx: Arc<Context>,
}

impl Reconcile for PriorityClassController {
    type Key = ObjectKey;
    const NAME: &'static str = "priority-class-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let resources = &self.ctx.resources;
        let found = resources.get_typed::<PriorityClass>("", &key.name).await;
        if unless_gone(found)?.is_some() {
            return Ok(Next::Wait);
        }
        let own = system_priority_classes();
        let Some(class) = own
            .into_iter()
            .find(|class| class.metadata.name.as_deref() == Some(&key.name))
        else {
            return Ok(Next::Wait);
        };
        match resources.create_typed(class).await {
            Err(status) if status.reason != Reason::AlreadyExists => Err(status.into()),
            _ => Ok(Next::Wait),
        }
    }
}
