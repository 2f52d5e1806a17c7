//! Carries out what is planned for a volume.

use std::sync::Arc;
use std::time::Duration;

use flotilla_api::claims;
use flotilla_resources::{DeleteOptions, EventType, Part};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{VolumeStep, plan_volume};
use super::protection::{VOLUME_FINALIZER, is_volume_used};
use super::{Known, drop_finalizer, modify};
use crate::context::{now, stamp, unless_gone};
use crate::runner::{Next, ObjectKey, Reconcile, ReconcileError};

/// A node that is gone takes its disks along; its volumes need not wait for it.
const NODE_RECHECK: Duration = Duration::from_secs(10);

pub(super) struct VolumeController {
    known: Arc<Known>,
}

impl VolumeController {
    pub(super) fn new(known: &Arc<Known>) -> Self {
        Self {
            known: Arc::clone(known),
        }
    }
}

impl Reconcile for VolumeController {
    type Key = ObjectKey;
    const NAME: &'static str = "persistent-volume-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(volume) = self.known.volumes.get("", &key.name) else {
            return Ok(Next::Wait);
        };
        let claim = self.claim(&volume).await?;
        match plan_volume(&volume, claim.as_ref()) {
            VolumeStep::Nothing => {}
            VolumeStep::Phase(phase, problem) => self.write_phase(&volume, key, phase, problem).await?,
            VolumeStep::Unreserve => self.unreserve(&volume, key).await?,
            VolumeStep::Delete => {
                let options = DeleteOptions {
                    uid: volume.metadata.uid.clone(),
                    ..DeleteOptions::default()
                };
                let resources = &self.known.ctx.resources;
                unless_gone(
                    resources
                        .delete_typed::<PersistentVolume>("", &key.name, &options)
                        .await,
                )?;
            }
        }
        self.let_go(&volume, key).await
    }
}

impl VolumeController {
    /// The claim that the volume is reserved for. That it does not exist is asked where it is surely known.
    async fn claim(
        &self,
        volume: &PersistentVolume,
    ) -> Result<Option<PersistentVolumeClaim>, ReconcileError> {
        let Some(reserved) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
            return Ok(None);
        };
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let (namespace, name) = (part(&reserved.namespace), part(&reserved.name));
        let known = self.known.claims.get(&namespace, &name);
        if let Some(claim) = known.filter(|claim| claims::is_reserved_for(volume, claim)) {
            return Ok(Some((*claim).clone()));
        }
        let found = self.known.ctx.resources.get_typed(&namespace, &name).await;
        Ok(unless_gone(found)?)
    }

    async fn write_phase(
        &self,
        volume: &PersistentVolume,
        key: &ObjectKey,
        phase: &'static str,
        problem: Option<String>,
    ) -> Result<(), ReconcileError> {
        if let Some(problem) = &problem {
            let reason = "VolumeFailedDelete";
            let ctx = &self.known.ctx;
            ctx.event(Self::NAME, volume, EventType::Warning, reason, problem.clone());
        }
        let since = Time(stamp(now()));
        modify(
            &self.known,
            &self.known.volumes,
            key,
            Part::Status,
            |found: &mut PersistentVolume| {
                let status = found.status.get_or_insert_default();
                if status.phase.as_deref() == Some(phase) {
                    return false;
                }
                status.phase = Some(phase.to_owned());
                status.message.clone_from(&problem);
                status.last_phase_transition_time = Some(since.clone());
                found.metadata.uid == volume.metadata.uid
            },
        )
        .await
    }

    async fn unreserve(&self, volume: &PersistentVolume, key: &ObjectKey) -> Result<(), ReconcileError> {
        modify(
            &self.known,
            &self.known.volumes,
            key,
            Part::Whole,
            |found: &mut PersistentVolume| {
                let is_same = found.metadata.uid == volume.metadata.uid;
                is_same
                    && found
                        .spec
                        .as_mut()
                        .is_some_and(|spec| spec.claim_ref.take().is_some())
            },
        )
        .await
    }

    /// Lets a volume that is to go go on its way, once no claim has it and its node, if it still exists, has given
    /// the disk back.
    async fn let_go(&self, volume: &PersistentVolume, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if volume.metadata.deletion_timestamp.is_none() || is_volume_used(volume) {
            return Ok(Next::Wait);
        }
        let annotations = volume.metadata.annotations.as_ref();
        let node = annotations.and_then(|annotations| annotations.get(claims::DISK_NODE));
        let is_node_gone = match node {
            Some(node) => unless_gone(self.known.ctx.resources.get_typed::<Node>("", node).await)?.is_none(),
            None => true,
        };
        modify(
            &self.known,
            &self.known.volumes,
            key,
            Part::Whole,
            |found: &mut PersistentVolume| {
                let finalizers = &mut found.metadata.finalizers;
                let mut is_changed = drop_finalizer(finalizers, VOLUME_FINALIZER);
                if is_node_gone {
                    is_changed |= drop_finalizer(finalizers, claims::DISK_FINALIZER);
                }
                is_changed
            },
        )
        .await?;
        Ok(Next::RecheckAfter(NODE_RECHECK))
    }
}
