//! Carries out what is planned for a claim.

use std::sync::Arc;

use flotilla_api::quantity::Quantity;
use flotilla_api::{Reason, claims};
use flotilla_resources::{EventType, Part};
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition, PersistentVolumeClaimSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{ClaimStep, View, plan_claim};
use super::protection::{CLAIM_FINALIZER, is_claim_used};
use super::{Known, drop_finalizer, modify, provision};
use crate::context::{now, revision_of, settle, stamp, unless_gone};
use crate::runner::{Next, ObjectKey, Reconcile, ReconcileError};

/// Kubernetes' words; where the node may resize what is mounted, no pod has to be started for it.
const RESIZE_PENDING: &str =
    "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

pub(super) struct ClaimController {
    known: Arc<Known>,
}

impl ClaimController {
    pub(super) fn new(known: &Arc<Known>) -> Self {
        Self {
            known: Arc::clone(known),
        }
    }
}

impl Reconcile for ClaimController {
    type Key = ObjectKey;
    const NAME: &'static str = "persistentvolume-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let known = &*self.known;
        let Some(claim) = known.claims.get(&key.namespace, &key.name) else {
            return Ok(Next::Wait);
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return self.let_go(&claim, key).await;
        }
        let (volumes, classes) = (known.volumes.list(None), known.classes.list(None));
        let step = plan_claim(&View {
            claim: &claim,
            volumes: &volumes.iter().map(|volume| &**volume).collect::<Vec<_>>(),
            classes: &classes.iter().map(|class| &**class).collect::<Vec<_>>(),
        });
        match step {
            ClaimStep::Nothing => {}
            ClaimStep::Wait(is_warning, reason, message) => {
                let type_ = if is_warning {
                    EventType::Warning
                } else {
                    EventType::Normal
                };
                known.ctx.event(Self::NAME, &*claim, type_, reason, message);
            }
            ClaimStep::SetClass(class) => self.set_class(key, &class).await?,
            ClaimStep::Bind(volume) => self.bind(&claim, key, &volume).await?,
            ClaimStep::Provision { class, node } => self.provision(&claim, key, &class, &node).await?,
            ClaimStep::Lose => self.lose(&claim, key).await?,
            ClaimStep::Grow { volume, bytes } => self.grow(key, &volume, bytes).await?,
        }
        Ok(Next::Wait)
    }
}

impl ClaimController {
    async fn modify_spec(
        &self,
        key: &ObjectKey,
        mut change: impl FnMut(&mut PersistentVolumeClaimSpec) -> bool + Send,
    ) -> Result<(), ReconcileError> {
        let known = &*self.known;
        modify(
            known,
            &known.claims,
            key,
            Part::Whole,
            |found: &mut PersistentVolumeClaim| change(found.spec.get_or_insert_default()),
        )
        .await
    }

    async fn set_class(&self, key: &ObjectKey, class: &str) -> Result<(), ReconcileError> {
        self.modify_spec(key, |spec| {
            let is_open = spec.storage_class_name.is_none();
            spec.storage_class_name.get_or_insert_with(|| class.to_owned());
            is_open
        })
        .await
    }

    /// Volume first, claim second: whoever dies in between leaves a volume that is reserved, and the next run goes on.
    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        key: &ObjectKey,
        name: &str,
    ) -> Result<(), ReconcileError> {
        let known = &*self.known;
        let volume_key = ObjectKey::cluster(name);
        modify(
            known,
            &known.volumes,
            &volume_key,
            Part::Whole,
            |found: &mut PersistentVolume| reserve(found, claim),
        )
        .await?;
        modify(
            known,
            &known.volumes,
            &volume_key,
            Part::Status,
            |found: &mut PersistentVolume| {
                let is_ours = claims::is_reserved_for(found, claim);
                let status = found.status.get_or_insert_default();
                let is_news = status.phase.as_deref() != Some("Bound");
                status.phase = Some("Bound".to_owned());
                status.last_phase_transition_time = Some(Time(stamp(now())));
                is_ours && is_news
            },
        )
        .await?;
        let Some(volume) = known.volumes.get("", name) else {
            return Ok(());
        };
        if !claims::is_reserved_for(&volume, claim) {
            return Ok(());
        }
        modify(
            known,
            &known.claims,
            key,
            Part::Whole,
            |found: &mut PersistentVolumeClaim| {
                found.metadata.uid == claim.metadata.uid && point_at(found, name)
            },
        )
        .await?;
        modify(
            known,
            &known.claims,
            key,
            Part::Status,
            |found: &mut PersistentVolumeClaim| {
                found.metadata.uid == claim.metadata.uid && show_bound(found, &volume)
            },
        )
        .await
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        key: &ObjectKey,
        class: &str,
        node: &str,
    ) -> Result<(), ReconcileError> {
        let known = &*self.known;
        let Some(class) = known.classes.get("", class) else {
            return Ok(());
        };
        let Some(node) = unless_gone(known.ctx.resources.get_typed::<Node>("", node).await)? else {
            // The scheduler has to choose again.
            return modify(
                known,
                &known.claims,
                key,
                Part::Whole,
                |found: &mut PersistentVolumeClaim| {
                    let annotations = found.metadata.annotations.as_mut();
                    annotations.is_some_and(|annotations| annotations.remove(claims::SELECTED_NODE).is_some())
                },
            )
            .await;
        };
        let volume = provision::volume(claim, &class, &node);
        let name = volume.metadata.name.clone().unwrap_or_default();
        match known.ctx.resources.create_typed(volume).await {
            Ok(made) => settle(&known.volumes, revision_of(&made)).await?,
            Err(status) if status.reason == Reason::AlreadyExists => {}
            Err(status) => return Err(status.into()),
        }
        let message = format!("Successfully provisioned volume {name}");
        let reason = "ProvisioningSucceeded";
        known.ctx.event(
            flotilla_api::LOCAL_PROVISIONER,
            claim,
            EventType::Normal,
            reason,
            message,
        );
        self.bind(claim, key, &name).await
    }

    async fn lose(&self, claim: &PersistentVolumeClaim, key: &ObjectKey) -> Result<(), ReconcileError> {
        let known = &*self.known;
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!".to_owned();
        known
            .ctx
            .event(Self::NAME, claim, EventType::Warning, "ClaimLost", message);
        modify(
            known,
            &known.claims,
            key,
            Part::Status,
            |found: &mut PersistentVolumeClaim| {
                let status = found.status.get_or_insert_default();
                let is_news = status.phase.as_deref() != Some("Lost");
                status.phase = Some("Lost".to_owned());
                (status.capacity, status.access_modes) = (None, None);
                is_news
            },
        )
        .await
    }

    /// Says how much the volume is to hold; its node makes it so and reports back.
    async fn grow(&self, key: &ObjectKey, volume: &str, bytes: i64) -> Result<(), ReconcileError> {
        let known = &*self.known;
        let size = Quantity::from_bytes(provision::whole_mebibytes(bytes)).to_field();
        let since = Time(stamp(now()));
        modify(
            known,
            &known.claims,
            key,
            Part::Status,
            |found: &mut PersistentVolumeClaim| {
                let conditions = found
                    .status
                    .get_or_insert_default()
                    .conditions
                    .get_or_insert_default();
                if conditions
                    .iter()
                    .any(|known| known.type_ == "FileSystemResizePending")
                {
                    return false;
                }
                conditions.push(PersistentVolumeClaimCondition {
                    type_: "FileSystemResizePending".to_owned(),
                    status: "True".to_owned(),
                    message: Some(RESIZE_PENDING.to_owned()),
                    last_transition_time: Some(since.clone()),
                    ..PersistentVolumeClaimCondition::default()
                });
                true
            },
        )
        .await?;
        let volume_key = ObjectKey::cluster(volume);
        modify(
            known,
            &known.volumes,
            &volume_key,
            Part::Whole,
            |found: &mut PersistentVolume| {
                let spec = found.spec.get_or_insert_default();
                let before = spec
                    .capacity
                    .get_or_insert_default()
                    .insert("storage".to_owned(), size.clone());
                before.as_ref() != Some(&size)
            },
        )
        .await
    }

    async fn let_go(&self, claim: &PersistentVolumeClaim, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let known = &*self.known;
        let pods = known.ctx.pods.list(Some(&key.namespace));
        if is_claim_used(&key.name, &pods) {
            return Ok(Next::Wait);
        }
        modify(
            known,
            &known.claims,
            key,
            Part::Whole,
            |found: &mut PersistentVolumeClaim| {
                let is_same = found.metadata.uid == claim.metadata.uid;
                is_same && drop_finalizer(&mut found.metadata.finalizers, CLAIM_FINALIZER)
            },
        )
        .await?;
        Ok(Next::Wait)
    }
}

/// Reserves the volume for the claim, unless another has it.
fn reserve(volume: &mut PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let spec = volume.spec.get_or_insert_default();
    let reserved = spec.claim_ref.as_ref();
    let is_whole = reserved.is_some_and(|reserved| reserved.uid == claim.metadata.uid);
    let is_open = reserved.is_none();
    if is_whole || (!is_open && !claims::is_reserved_for(volume, claim)) {
        return false;
    }
    let spec = volume.spec.get_or_insert_default();
    spec.claim_ref = Some(claims::reference(claim));
    if is_open {
        let annotations = volume.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    true
}

fn point_at(claim: &mut PersistentVolumeClaim, volume: &str) -> bool {
    let annotations = claim.metadata.annotations.get_or_insert_default();
    let mut is_changed = annotations
        .insert(BIND_COMPLETED.to_owned(), "yes".to_owned())
        .is_none();
    let spec = claim.spec.get_or_insert_default();
    if spec.volume_name.as_deref().unwrap_or_default().is_empty() {
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        spec.volume_name = Some(volume.to_owned());
        is_changed = true;
    }
    is_changed
}

fn show_bound(claim: &mut PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let spec = volume.spec.clone().unwrap_or_default();
    let status = claim.status.get_or_insert_default();
    if status.phase.as_deref() == Some("Bound") && status.capacity.is_some() {
        return false;
    }
    status.phase = Some("Bound".to_owned());
    status.access_modes = spec.access_modes;
    status.capacity = spec.capacity;
    true
}
