//! What nodes have done about the disks of persistent volumes, written down.

use flotilla_api::quantity::Quantity;
use flotilla_api::{Reason, claims};
use flotilla_proto::node::{DiskReport, DiskReported, disk_report::Done};
use flotilla_resources::{Part, Resources};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use tonic::Status;

/// Conditions of a claim whose volume is growing.
const GROWING: [&str; 2] = ["FileSystemResizePending", "Resizing"];

/// Writes a report down; a node speaks of its own disks only.
pub(super) async fn report(
    resources: &Resources,
    node: &str,
    report: DiskReport,
) -> Result<DiskReported, Status> {
    let volume = match resources.get_typed::<PersistentVolume>("", &report.volume).await {
        Ok(volume) => volume,
        // It has gone meanwhile, so nothing is left to be said about it.
        Err(status) if status.reason == Reason::NotFound => return Ok(DiskReported {}),
        Err(status) => return Err(Status::unavailable(status.message)),
    };
    if volume.metadata.uid.as_deref() != Some(&report.uid) {
        return Ok(DiskReported {});
    }
    if !is_of(&volume, node) {
        let message = format!("volume {} is not on a disk of node {node}", report.volume);
        return Err(Status::permission_denied(message));
    }
    let written = match report.done {
        Some(Done::Made(_)) => change(resources, &volume, note_made).await,
        Some(Done::Released(_)) => change(resources, &volume, release).await,
        Some(Done::Grown(grown)) => note_grown(resources, &volume, grown.bytes).await,
        None => return Err(Status::invalid_argument("a report says what was done")),
    };
    written.map_err(|status| Status::unavailable(status.message))?;
    Ok(DiskReported {})
}

fn is_of(volume: &PersistentVolume, node: &str) -> bool {
    let annotations = volume.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(claims::DISK_NODE))
        .map(String::as_str)
        == Some(node)
}

async fn change(
    resources: &Resources,
    volume: &PersistentVolume,
    change: impl Fn(&mut PersistentVolume) -> bool,
) -> Result<(), flotilla_api::Status> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let changed = resources.modify("", name, Part::Whole, |found: &mut PersistentVolume| {
        found.metadata.uid == volume.metadata.uid && change(found)
    });
    changed.await.map(drop)
}

fn note_made(volume: &mut PersistentVolume) -> bool {
    let annotations = volume.metadata.annotations.get_or_insert_default();
    annotations
        .insert(claims::DISK_MADE.to_owned(), "true".to_owned())
        .is_none()
}

fn release(volume: &mut PersistentVolume) -> bool {
    let Some(finalizers) = &mut volume.metadata.finalizers else {
        return false;
    };
    let before = finalizers.len();
    finalizers.retain(|finalizer| finalizer != claims::DISK_FINALIZER);
    finalizers.len() != before
}

/// The claim shows its new size once the node has made room.
async fn note_grown(
    resources: &Resources,
    volume: &PersistentVolume,
    bytes: i64,
) -> Result<(), flotilla_api::Status> {
    let Some(claim) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return Ok(());
    };
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let size = Quantity::from_bytes(bytes.unsigned_abs()).to_field();
    let (namespace, name) = (text(&claim.namespace), text(&claim.name));
    let changed = resources.modify(
        &namespace,
        &name,
        Part::Status,
        |found: &mut PersistentVolumeClaim| {
            let is_of_volume = claims::volume_name(found) == volume.metadata.name.as_deref();
            if !is_of_volume || !claims::is_bound(found) {
                return false;
            }
            let status = found.status.get_or_insert_default();
            let capacity = status.capacity.get_or_insert_default();
            let before = capacity.insert("storage".to_owned(), size.clone());
            let conditions = status.conditions.take().unwrap_or_default();
            let was_growing = conditions
                .iter()
                .any(|known| GROWING.contains(&known.type_.as_str()));
            let left: Vec<_> = conditions
                .into_iter()
                .filter(|known| !GROWING.contains(&known.type_.as_str()))
                .collect();
            status.conditions = Some(left).filter(|left| !left.is_empty());
            was_growing || before.as_ref() != Some(&size)
        },
    );
    changed.await.map(drop)
}
