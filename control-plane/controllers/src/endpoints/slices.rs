//! Slices from pods.

use std::sync::Arc;

use flotilla_resources::DeleteOptions;
use flotilla_store::Revision;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::plan::{Common, PortGroup, Step, group, plan};
use super::{MANAGED_BY, SERVICE_LABEL, observe};
use crate::context::{Context, later, revision_of, revision_of_deletion, settle, unless_gone};
use crate::labels::controller_ref;
use crate::runner::{Next, ObjectKey, Reconcile, ReconcileError};

const NAME: &str = "endpointslice-controller.k8s.io";

/// Keyed by service.
pub(super) struct SliceController {
    pub(super) ctx: Arc<Context>,
}

impl Reconcile for SliceController {
    type Key = ObjectKey;
    const NAME: &'static str = "endpointslice-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let service = self.ctx.services.get(&key.namespace, &key.name);
        // Slices of a service that is gone go with their owner.
        let Some(service) = service.filter(|service| observe::has_selector(service)) else {
            return Ok(Next::Wait);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let wanted = self.groups(&service);
        carry_out(&self.ctx, key, NAME, &common(&service), wanted).await?;
        Ok(Next::Wait)
    }
}

impl SliceController {
    fn groups(&self, service: &Service) -> Vec<PortGroup> {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let mut groups = Vec::new();
        for pod in self.ctx.pods.list(Some(namespace)) {
            if !observe::selects(service, &pod) || !observe::is_candidate(&pod) {
                continue;
            }
            let node = self.ctx.nodes.get("", crate::pods::node_name(&pod));
            if let Some(endpoint) = observe::endpoint(service, &pod, node.as_deref()) {
                group(&mut groups, observe::ports(service, &pod), endpoint);
            }
        }
        groups
    }
}

fn common(service: &Service) -> Common {
    let meta = &service.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = observe::labels(service);
    labels.insert(SERVICE_LABEL.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    Common {
        namespace: meta.namespace.clone().unwrap_or_default(),
        base_name: name,
        labels,
        owner: controller_ref("v1", "Service", meta),
    }
}

/// Writes what has to be written of the slices that `manager` keeps for a service.
pub(super) async fn carry_out(
    ctx: &Context,
    service: &ObjectKey,
    manager: &str,
    common: &Common,
    wanted: Vec<PortGroup>,
) -> Result<(), ReconcileError> {
    let present = kept_by(ctx, service, manager);
    let present: Vec<&EndpointSlice> = present.iter().map(|slice| &**slice).collect();
    let mut written = Revision(0);
    for step in plan(common, wanted, &present) {
        write(ctx, &service.namespace, step, &mut written).await?;
    }
    settle(&ctx.endpoint_slices, written).await
}

/// Removes all slices that `manager` keeps for a service.
pub(super) async fn remove_all(
    ctx: &Context,
    service: &ObjectKey,
    manager: &str,
) -> Result<(), ReconcileError> {
    let mut written = Revision(0);
    for slice in kept_by(ctx, service, manager) {
        let step = Step::Delete(slice.metadata.name.clone().unwrap_or_default());
        write(ctx, &service.namespace, step, &mut written).await?;
    }
    settle(&ctx.endpoint_slices, written).await
}

fn kept_by(ctx: &Context, service: &ObjectKey, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let mut slices = ctx.endpoint_slices.list(Some(&service.namespace));
    slices.retain(|slice| {
        let label = |name: &str| slice.metadata.labels.as_ref()?.get(name).map(String::as_str);
        label(SERVICE_LABEL) == Some(&service.name)
            && label(MANAGED_BY) == Some(manager)
            && slice.metadata.deletion_timestamp.is_none()
    });
    slices
}

async fn write(
    ctx: &Context,
    namespace: &str,
    step: Step,
    written: &mut Revision,
) -> Result<(), ReconcileError> {
    match step {
        Step::Create(slice) => later(written, revision_of(&ctx.resources.create_typed(slice).await?)),
        Step::Update(slice) => {
            if let Some(updated) = unless_gone(ctx.resources.update_typed(slice).await)? {
                later(written, revision_of(&updated));
            }
        }
        Step::Delete(name) => {
            let options = DeleteOptions::default();
            let deleted = ctx
                .resources
                .delete_typed::<EndpointSlice>(namespace, &name, &options)
                .await;
            if let Some(deleted) = unless_gone(deleted)? {
                later(written, revision_of_deletion(&deleted));
            }
        }
    }
    Ok(())
}
