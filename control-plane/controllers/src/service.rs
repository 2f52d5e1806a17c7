//! Sees to it that every service has its address, and that there is the service by which pods reach the API.

mod kubernetes;

use std::sync::Arc;

use flotilla_resources::Part;
use flotilla_store::Revision;
use k8s_openapi::api::core::v1::Service;

use crate::context::{Context, revision_of, settle};
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};

/// Starts the controllers.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let queue = Queue::new();
    let feed = queue.clone();
    ctx.services.subscribe(move |event| {
        if lacks_address(event.object()) {
            feed.add(ObjectKey::of(&**event.object()));
        }
    });
    runner.start(AddressController { ctx: Arc::clone(ctx) }, queue);
    kubernetes::start(ctx, runner);
}

fn lacks_address(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.type_.as_deref() != Some("ExternalName")
            && spec.cluster_ip.as_deref().unwrap_or_default().is_empty()
    })
}

/// Gives addresses to services that were stored before there were any.
struct AddressController {
    ctx: Arc<Context>,
}

impl Reconcile for AddressController {
    type Key = ObjectKey;
    const NAME: &'static str = "service-address-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        // The write path chooses the address.
        let resources = &self.ctx.resources;
        let stored = resources
            .modify(&key.namespace, &key.name, Part::Whole, |service| {
                lacks_address(service)
            })
            .await?;
        settle(
            &self.ctx.services,
            stored.as_ref().map_or(Revision(0), revision_of),
        )
        .await?;
        Ok(Next::Wait)
    }
}
