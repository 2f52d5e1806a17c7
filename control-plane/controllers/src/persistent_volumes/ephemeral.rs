//! Makes the claims of generic ephemeral volumes; they go with their pods by ownership.

use std::sync::Arc;

use flotilla_api::{Reason, claims};
use flotilla_resources::EventType;
use flotilla_store::Revision;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::Known;
use crate::context::{revision_of, settle};
use crate::runner::{Next, ObjectKey, Reconcile, ReconcileError};

pub(super) struct EphemeralController {
    known: Arc<Known>,
}

impl EphemeralController {
    pub(super) fn new(known: &Arc<Known>) -> Self {
        Self {
            known: Arc::clone(known),
        }
    }
}

impl Reconcile for EphemeralController {
    type Key = ObjectKey;
    const NAME: &'static str = "ephemeral-volume-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(pod) = self.known.ctx.pods.get(&key.namespace, &key.name) else {
            return Ok(Next::Wait);
        };
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let mut written = Revision(0);
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let Some(claim) = claim(&pod, volume) else {
                continue;
            };
            let name = claim.metadata.name.clone().unwrap_or_default();
            match self.known.claims.get(&key.namespace, &name) {
                Some(found) if claims::is_made_for(&found, &pod) => continue,
                Some(_) => {
                    let message = format!(
                        "PVC \"{}/{name}\" was not created for pod \"{}/{}\" (pod is not owner)",
                        key.namespace, key.namespace, key.name
                    );
                    let reason = "FailedBinding";
                    self.known
                        .ctx
                        .event(Self::NAME, &*pod, EventType::Warning, reason, message);
                    continue;
                }
                None => {}
            }
            match self.known.ctx.resources.create_typed(claim).await {
                Ok(made) => written = written.max(revision_of(&made)),
                Err(status) if status.reason == Reason::AlreadyExists => {}
                Err(status) => return Err(status.into()),
            }
        }
        settle(&self.known.claims, written).await?;
        Ok(Next::Wait)
    }
}

/// The claim that an ephemeral volume of the pod stands for.
pub(super) fn claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.clone()?;
    let (name, _) = claims::claim_of(pod, volume)?;
    let meta = template.metadata.unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        ..PersistentVolumeClaim::default()
    })
}
