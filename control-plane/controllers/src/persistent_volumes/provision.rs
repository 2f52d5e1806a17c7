//! The volume that is made for a claim on a node. Pure.

use flotilla_api::quantity::Quantity;
use flotilla_api::{LOCAL_PROVISIONER, claims};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const HOST_NAME: &str = "kubernetes.io/hostname";
/// Sizes are whole mebibytes: file systems have blocks.
const MEBIBYTE: i64 = 1 << 20;

/// The volume, reserved for its claim.
pub(super) fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node) -> PersistentVolume {
    let uid = claim.metadata.uid.clone().unwrap_or_default();
    let name = format!("pvc-{uid}");
    let node_name = node.metadata.name.clone().unwrap_or_default();
    let spec = claim.spec.clone().unwrap_or_default();
    let bytes = whole_mebibytes(claims::requested_bytes(claim));
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(
                [
                    ("pv.kubernetes.io/provisioned-by", LOCAL_PROVISIONER),
                    (claims::DISK_NODE, &node_name),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ),
            finalizers: Some(vec![claims::DISK_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some([("storage".to_owned(), Quantity::from_bytes(bytes).to_field())].into()),
            claim_ref: Some(claims::reference(claim)),
            csi: Some(CSIPersistentVolumeSource {
                driver: LOCAL_PROVISIONER.to_owned(),
                fs_type: Some("ext4".to_owned()),
                volume_handle: name,
                ..CSIPersistentVolumeSource::default()
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(only_on(node, &node_name)),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        ..PersistentVolume::default()
    }
}

/// Bytes, rounded up.
pub(super) fn whole_mebibytes(bytes: i64) -> u64 {
    let bytes = bytes.max(1).saturating_add(MEBIBYTE - 1) / MEBIBYTE * MEBIBYTE;
    u64::try_from(bytes).unwrap_or_default()
}

fn only_on(node: &Node, name: &str) -> VolumeNodeAffinity {
    let labels = node.metadata.labels.as_ref();
    let host = labels.and_then(|labels| labels.get(HOST_NAME)).cloned();
    let requirement = NodeSelectorRequirement {
        key: HOST_NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![host.unwrap_or_else(|| name.to_owned())]),
    };
    VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_expressions: Some(vec![requirement]),
                match_fields: None,
            }],
        }),
    }
}
