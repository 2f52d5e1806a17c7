//! Makes the storage class that every cluster starts with.

use std::sync::Arc;

use flotilla_api::{Reason, local_storage_class};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::context::{Context, unless_gone};
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};

/// Starts the controller; it is done once the class is there.
pub(super) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let queue = Queue::new();
    queue.add(ObjectKey::of(&local_storage_class()));
    runner.start(StorageClassController { ctx: Arc::clone(ctx) }, queue);
}

struct StorageClassController {
    ctx: Arc<Context>,
}

impl Reconcile for StorageClassController {
    type Key = ObjectKey;
    const NAME: &'static str = "storage-class-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let resources = &self.ctx.resources;
        let found = resources.get_typed::<StorageClass>("", &key.name).await;
        if unless_gone(found)?.is_some() {
            return Ok(Next::Wait);
        }
        match resources.create_typed(local_storage_class()).await {
            Err(status) if status.reason != Reason::AlreadyExists => Err(status.into()),
            _ => Ok(Next::Wait),
        }
    }
}
