//! Who is who in a StatefulSet: ordinals, and the names, labels and volumes that follow from them.
//!
//! Pure. The same ordinal always makes the same names, so that there can never be two pods of one ordinal.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodSpec, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::labels::controller_ref;

/// Names the pod's revision of the template.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// A set's name.
pub(crate) fn name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// A set's spec, empty when it has none.
pub(crate) fn spec(set: &StatefulSet) -> StatefulSetSpec {
    set.spec.clone().unwrap_or_default()
}

/// The ordinals that a set wants.
pub(crate) fn wanted(set: &StatefulSet) -> std::ops::Range<i32> {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|spec| spec.ordinals.as_ref()?.start).unwrap_or(0);
    let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1).max(0);
    start..start.saturating_add(replicas)
}

/// The ordinal in a name that was made from the set's: `web-3`, but not `web-03`, which would be another pod.
pub(crate) fn ordinal(set: &StatefulSet, pod_name: &str) -> Option<i32> {
    let digits = pod_name.strip_prefix(name(set))?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (ordinal >= 0 && ordinal.to_string() == digits).then_some(ordinal)
}

/// The ordinal of a pod.
pub(crate) fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    ordinal(set, pod.metadata.name.as_deref()?)
}

/// The name of the pod with this ordinal.
pub(crate) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", name(set))
}

/// The name of the claim that a template makes for an ordinal.
pub(crate) fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    let claim = template.metadata.name.as_deref().unwrap_or_default();
    format!("{claim}-{}", pod_name(set, ordinal))
}

/// The claim templates of a set.
pub(crate) fn claim_templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    let templates = set
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_claim_templates.as_deref());
    templates.unwrap_or_default()
}

/// Whether a claim's name is one that this set makes.
pub(crate) fn makes_claim(set: &StatefulSet, claim_name: &str) -> bool {
    claim_templates(set).iter().any(|template| {
        let of_template = template.metadata.name.as_deref().unwrap_or_default();
        let rest = claim_name
            .strip_prefix(of_template)
            .and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|rest| ordinal(set, rest).is_some())
    })
}

/// The claim of a template for an ordinal, as it is created.
pub(crate) fn claim(
    set: &StatefulSet,
    template: &PersistentVolumeClaim,
    ordinal: i32,
) -> PersistentVolumeClaim {
    let mut claim = template.clone();
    claim.metadata.name = Some(claim_name(set, template, ordinal));
    claim.metadata.namespace.clone_from(&set.metadata.namespace);
    let selector = set
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.clone());
    let labels = claim.metadata.labels.get_or_insert_default();
    labels.extend(selector.unwrap_or_default());
    claim.status = None;
    claim
}

/// The pod of an ordinal, made from a revision of the template.
pub(crate) fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let described = template.metadata.clone().unwrap_or_default();
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(pod_name(set, ordinal)),
            namespace: set.metadata.namespace.clone(),
            labels: described.labels,
            annotations: described.annotations,
            finalizers: described.finalizers,
            owner_references: Some(vec![controller_ref("apps/v1", "StatefulSet", &set.metadata)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    };
    correct(&mut pod, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname.clone_from(&pod.metadata.name);
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    spec.subdomain = service.filter(|service| !service.is_empty());
    mount_claims(set, spec, ordinal);
    pod
}

/// The volumes of the claim templates take the place of those of the same name.
fn mount_claims(set: &StatefulSet, spec: &mut PodSpec, ordinal: i32) {
    let templates = claim_templates(set);
    if templates.is_empty() {
        return;
    }
    let volume = |template: &PersistentVolumeClaim| Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, template, ordinal),
            read_only: None,
        }),
        ..Volume::default()
    };
    let mut volumes: Vec<Volume> = templates.iter().map(volume).collect();
    let is_claimed = |volume: &Volume| {
        templates
            .iter()
            .any(|template| template.metadata.name.as_deref() == Some(&volume.name))
    };
    let others = spec.volumes.take().unwrap_or_default();
    volumes.extend(others.into_iter().filter(|volume| !is_claimed(volume)));
    spec.volumes = Some(volumes);
}

/// Gives a pod the labels of its ordinal. Says whether it lacked one.
pub(crate) fn correct(pod: &mut Pod, ordinal: i32) -> bool {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let labels = pod.metadata.labels.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(POD_NAME_LABEL, name), (POD_INDEX_LABEL, ordinal.to_string())] {
        changed |= labels.insert(key.to_owned(), value.clone()).as_ref() != Some(&value);
    }
    changed
}

/// The revision from which a pod was made.
pub(crate) fn revision_of_pod(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(REVISION_LABEL))
        .map_or("", String::as_str)
}
