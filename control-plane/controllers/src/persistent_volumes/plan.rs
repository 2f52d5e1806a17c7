//! What is to become of a claim, and of a volume. Pure.

use flotilla_api::{LOCAL_PROVISIONER, claims, is_default_class};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

/// What the binder sees of a claim's surroundings.
pub(super) struct View<'a> {
    pub(super) claim: &'a PersistentVolumeClaim,
    pub(super) volumes: &'a [&'a PersistentVolume],
    pub(super) classes: &'a [&'a StorageClass],
}

/// The next step for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClaimStep {
    /// All is as it should be.
    Nothing,
    /// It waits; why is told as an event: warning, reason, message.
    Wait(bool, &'static str, String),
    /// It names no class and gets the default one.
    SetClass(String),
    /// Bind it to this volume, or finish what was begun.
    Bind(String),
    /// Have a volume made on this node.
    Provision { class: String, node: String },
    /// Its volume is gone.
    Lose,
    /// Its volume is to hold so much.
    Grow { volume: String, bytes: i64 },
}

/// Decides on a claim.
pub(super) fn plan_claim(view: &View<'_>) -> ClaimStep {
    let claim = view.claim;
    let Some(spec) = &claim.spec else {
        return ClaimStep::Nothing;
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return ClaimStep::Nothing;
    }
    if let Some(name) = claims::volume_name(claim) {
        return with_volume(view, name);
    }
    if spec.storage_class_name.is_none()
        && let Some(class) = default_class(view.classes)
    {
        return ClaimStep::SetClass(class);
    }
    without_volume(view, claims::class_of(spec))
}

fn default_class(classes: &[&StorageClass]) -> Option<String> {
    // Of several the newest, as Kubernetes chooses.
    let defaults = classes.iter().filter(|class| is_default_class(class));
    let newest = defaults.max_by_key(|class| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, std::cmp::Reverse(class.metadata.name.clone()))
    });
    newest.and_then(|class| class.metadata.name.clone())
}

fn with_volume(view: &View<'_>, name: &str) -> ClaimStep {
    let claim = view.claim;
    let named = |volume: &&&PersistentVolume| volume.metadata.name.as_deref() == Some(name);
    let Some(volume) = view.volumes.iter().find(named) else {
        return match claims::is_bound(claim) {
            true => ClaimStep::Lose,
            false => ClaimStep::Nothing,
        };
    };
    let reserved = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reserved.is_some() && !claims::is_reserved_for(volume, claim) {
        let message = format!("volume \"{name}\" already bound to a different claim.");
        return match claims::is_bound(claim) {
            true => ClaimStep::Lose,
            false => ClaimStep::Wait(true, "FailedBinding", message),
        };
    }
    let is_finished = |volume: &PersistentVolume| {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        phase == Some("Bound") && claims::is_reserved_for(volume, claim)
    };
    if !claims::is_bound(claim) || !is_finished(volume) {
        return ClaimStep::Bind(name.to_owned());
    }
    grow(view, volume)
}

fn grow(view: &View<'_>, volume: &PersistentVolume) -> ClaimStep {
    let bytes = claims::requested_bytes(view.claim);
    if bytes <= claims::capacity_bytes(volume) {
        return ClaimStep::Nothing;
    }
    let class = class(view, view.claim.spec.as_ref().and_then(claims::class_of));
    if class.is_none_or(|class| class.allow_volume_expansion != Some(true)) {
        let message = "the storage class does not allow volumes to grow (allowVolumeExpansion)".to_owned();
        return ClaimStep::Wait(true, "VolumeResizeFailed", message);
    }
    let driver = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    match driver {
        Some(driver) if driver.driver == LOCAL_PROVISIONER => ClaimStep::Grow {
            volume: volume.metadata.name.clone().unwrap_or_default(),
            bytes,
        },
        _ => {
            let message = "waiting for an external controller to expand this PVC".to_owned();
            ClaimStep::Wait(false, "ExternalExpanding", message)
        }
    }
}

fn class<'a>(view: &View<'a>, name: Option<&str>) -> Option<&'a StorageClass> {
    let mut classes = view.classes.iter();
    classes
        .find(|class| class.metadata.name.as_deref() == name && name.is_some())
        .copied()
}

fn without_volume(view: &View<'_>, class_name: Option<&str>) -> ClaimStep {
    let class = class(view, class_name);
    let waits_for_pod =
        class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
    let selected = view.claim.metadata.annotations.as_ref();
    let selected = selected.and_then(|annotations| annotations.get(claims::SELECTED_NODE));
    let candidates = view.volumes.iter().copied();
    if let Some(found) = claims::best(candidates, view.claim) {
        // Of volumes that are nobody's the scheduler chooses, which knows the node.
        if !waits_for_pod || claims::is_reserved_for(found, view.claim) {
            return ClaimStep::Bind(found.metadata.name.clone().unwrap_or_default());
        }
    }
    match (class_name, class, selected) {
        (None, ..) => ClaimStep::Wait(
            false,
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set".to_owned(),
        ),
        (Some(name), None, _) => ClaimStep::Wait(
            true,
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io \"{name}\" not found"),
        ),
        (_, Some(_), None) if waits_for_pod => ClaimStep::Wait(
            false,
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding".to_owned(),
        ),
        (Some(name), Some(class), selected) => provision(view.claim, name, class, selected),
    }
}

fn provision(
    claim: &PersistentVolumeClaim,
    name: &str,
    class: &StorageClass,
    selected: Option<&String>,
) -> ClaimStep {
    let failed = |message: &str| ClaimStep::Wait(true, "ProvisioningFailed", message.to_owned());
    if class.provisioner == "kubernetes.io/no-provisioner" {
        let message = "no volume plugin matched: the class makes no volumes (kubernetes.io/no-provisioner)";
        return failed(message);
    }
    if class.provisioner != LOCAL_PROVISIONER {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered.",
            class.provisioner
        );
        return ClaimStep::Wait(false, "ExternalProvisioning", message);
    }
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return failed("volumes of this provisioner are file systems: set volumeMode to Filesystem");
    }
    if spec.selector.is_some() {
        return failed("claim.Spec.Selector is not supported");
    }
    if spec
        .access_modes
        .iter()
        .flatten()
        .any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
    {
        return failed("a disk of one node cannot be shared by several: set accessModes to ReadWriteOnce");
    }
    match selected {
        Some(node) => ClaimStep::Provision {
            class: name.to_owned(),
            node: node.clone(),
        },
        None => failed("disks of nodes need a class with volumeBindingMode WaitForFirstConsumer"),
    }
}

/// The next step for a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VolumeStep {
    /// All is as it should be.
    Nothing,
    /// Write this phase down, with a reason where it is a failure.
    Phase(&'static str, Option<String>),
    /// Let go of a claim that has another volume.
    Unreserve,
    /// Its claim is gone: delete it.
    Delete,
}

/// Decides on a volume; `claim` is the one that it is reserved for, if that exists.
pub(super) fn plan_volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeStep {
    let Some(spec) = &volume.spec else {
        return VolumeStep::Nothing;
    };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let to = |wanted: &'static str| match phase == Some(wanted) {
        true => VolumeStep::Nothing,
        false => VolumeStep::Phase(wanted, None),
    };
    let Some(reserved) = &spec.claim_ref else {
        return to("Available");
    };
    // Reserved by hand for a claim that may yet come.
    if reserved.uid.as_deref().is_none_or(str::is_empty) {
        return to("Available");
    }
    match claim.filter(|claim| claims::is_reserved_for(volume, claim)) {
        Some(claim) => match claims::volume_name(claim) {
            Some(name) if Some(name) == volume.metadata.name.as_deref() => to("Bound"),
            Some(_) => VolumeStep::Unreserve,
            // The claim's own controller finishes what was begun.
            None => VolumeStep::Nothing,
        },
        None if phase != Some("Released") && phase != Some("Failed") => VolumeStep::Phase("Released", None),
        None => reclaim(volume, phase),
    }
}

fn reclaim(volume: &PersistentVolume, phase: Option<&str>) -> VolumeStep {
    let spec = volume.spec.clone().unwrap_or_default();
    let is_ours = spec
        .csi
        .as_ref()
        .is_some_and(|csi| csi.driver == LOCAL_PROVISIONER);
    let failed = |message: &str| match phase {
        Some("Failed") => VolumeStep::Nothing,
        _ => VolumeStep::Phase("Failed", Some(message.to_owned())),
    };
    match spec.persistent_volume_reclaim_policy.as_deref() {
        Some("Delete") if volume.metadata.deletion_timestamp.is_some() => VolumeStep::Nothing,
        Some("Delete") if is_ours => VolumeStep::Delete,
        Some("Delete") => failed("error getting deleter volume plugin: no deletable volume plugin matched"),
        Some("Recycle") => failed("recycling is deprecated and not supported: use Retain or Delete"),
        _ => VolumeStep::Nothing,
    }
}
