//! Endpoints and EndpointSlices: which pods stand behind each service.
//!
//! Slices are what nodes and names go by, so they have a queue of their own and are written first; Endpoints are for
//! clients that know nothing newer. Custom Endpoints of services without a selector are mirrored to slices.

mod mirror;
mod observe;
mod plan;
mod slices;
mod subsets;

use std::sync::Arc;

use flotilla_resources::CacheEvent;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::context::Context;
use crate::runner::{ObjectKey, Queue, Runner};

/// Names the service of a slice.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Names who keeps a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Marks what belongs to a service without an address.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// On Endpoints that are not to be mirrored.
pub(crate) const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Starts the controllers.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let (slices, subsets, mirrors) = (Queue::new(), Queue::new(), Queue::new());
    let feeds = [slices.clone(), subsets.clone(), mirrors.clone()];
    ctx.services.subscribe(move |event| {
        let key = ObjectKey::of(&**event.object());
        feeds.iter().for_each(|feed| feed.add(key.clone()));
    });
    let (known, feeds) = (Arc::downgrade(ctx), [slices.clone(), subsets.clone()]);
    ctx.pods.subscribe(move |event| {
        let Some(ctx) = known.upgrade() else { return };
        for key in concerned(&ctx, event) {
            feeds.iter().for_each(|feed| feed.add(key.clone()));
        }
    });
    // What somebody else changed or removed is put right.
    let feeds = [slices.clone(), mirrors.clone()];
    ctx.endpoint_slices.subscribe(move |event| {
        if let Some(key) = service_of(event.object()) {
            feeds.iter().for_each(|feed| feed.add(key.clone()));
        }
    });
    let feeds = [subsets.clone(), mirrors.clone()];
    ctx.endpoints.subscribe(move |event: &CacheEvent<Endpoints>| {
        let key = ObjectKey::of(&**event.object());
        feeds.iter().for_each(|feed| feed.add(key.clone()));
    });
    runner.start(slices::SliceController { ctx: Arc::clone(ctx) }, slices);
    runner.start(subsets::EndpointsController { ctx: Arc::clone(ctx) }, subsets);
    runner.start(mirror::MirrorController { ctx: Arc::clone(ctx) }, mirrors);
}

/// The service that a slice tells of.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let meta = &slice.metadata;
    Some(ObjectKey {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.labels.as_ref()?.get(SERVICE_LABEL)?.clone(),
    })
}

/// The services that a change of a pod is about: those that select it now or did before, if anything changed that they
/// tell of it.
fn concerned(ctx: &Context, event: &CacheEvent<Pod>) -> Vec<ObjectKey> {
    if let CacheEvent::Modified { old, new } = event
        && observe::is_same_endpoint(old, new)
    {
        return Vec::new();
    }
    let pod = event.object();
    let old = match event {
        CacheEvent::Modified { old, .. } => Some(old),
        _ => None,
    };
    let services = ctx
        .services
        .list(Some(pod.metadata.namespace.as_deref().unwrap_or_default()));
    let selects = |service: &&Arc<Service>| {
        observe::selects(service, pod) || old.is_some_and(|old| observe::selects(service, old))
    };
    services
        .iter()
        .filter(selects)
        .map(|service| ObjectKey::of(&**service))
        .collect()
}

#[cfg(test)]
mod tests;
