//! Volumes on this machine: hands the work to threads that may block.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use flotilla_lifecycle::{Facts, Quantities, References};
use flotilla_report::report;
use flotilla_volumes::{DiskError, Order, SetUpError, Tokens, Volumes, images_wanted};
use k8s_openapi::api::core::v1::Pod;

use super::{ChangeDiskError, LocalMachine, Machine, RemoveVolumesError};

/// What a pod's volumes are made from.
pub(crate) struct VolumesOrder {
    pub(crate) pod: Pod,
    pub(crate) references: References,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_addresses: Vec<IpAddr>,
    pub(crate) allocatable: Quantities,
    pub(crate) tokens: Tokens,
}

pub(super) async fn set_up(machine: &LocalMachine, order: VolumesOrder) -> Result<(), Vec<SetUpError>> {
    let images = images(machine, &order.pod).await?;
    let volumes = machine.volumes.clone();
    let work = move || {
        let facts = Facts {
            pod: &order.pod,
            references: &order.references,
            addresses: &order.addresses,
            host_addresses: &order.host_addresses,
            allocatable: &order.allocatable,
            services: &[],
        };
        volumes.set_up(Order {
            facts: &facts,
            tokens: &order.tokens,
            images: &images,
        })
    };
    let made = tokio::task::spawn_blocking(work).await;
    made.unwrap_or_else(|error| Err(vec![failure("", report(&error))]))
}

/// The layers of the images that are volumes, kept from removal as those of containers are.
async fn images(
    machine: &LocalMachine,
    pod: &Pod,
) -> Result<BTreeMap<String, Vec<PathBuf>>, Vec<SetUpError>> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut images = BTreeMap::new();
    let mut failures = Vec::new();
    for (volume, (reference, _)) in images_wanted(pod) {
        match machine
            .find_image(&reference, uid, &format!("volume.{volume}"))
            .await
        {
            Ok(found) => images.extend(found.map(|image| (volume, image.layers))),
            Err(error) => failures.push(failure(&volume, report(&error))),
        }
    }
    match failures.is_empty() {
        true => Ok(images),
        false => Err(failures),
    }
}

fn failure(volume: &str, problem: String) -> SetUpError {
    SetUpError {
        volume: volume.to_owned(),
        problem,
    }
}

pub(super) async fn change_disk(
    machine: &LocalMachine,
    name: &str,
    change: impl FnOnce(&Volumes, &str) -> Result<(), DiskError> + Send + 'static,
) -> Result<(), ChangeDiskError> {
    let (volumes, name) = (machine.volumes.clone(), name.to_owned());
    let changed = tokio::task::spawn_blocking(move || change(&volumes, &name)).await;
    Ok(changed.map_err(|_| ChangeDiskError::Cancelled)??)
}

pub(super) async fn remove(machine: &LocalMachine, uid: &str) -> Result<(), RemoveVolumesError> {
    let (volumes, uid) = (machine.volumes.clone(), uid.to_owned());
    let removed = tokio::task::spawn_blocking(move || volumes.tear_down(&uid)).await;
    Ok(removed.map_err(|_| RemoveVolumesError::Cancelled)??)
}
