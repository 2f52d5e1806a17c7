//! Settles a pod's claims on the node that was chosen for it, then binds the pod.
//!
//! The binder of claims and volumes does the rest once it is written down what is to go where; a pod is bound only when
//! all its claims are.

use std::time::Duration;

use flotilla_api::{Reason, Status, claims};
use flotilla_resources::{Binding, Cache, Part, Resources};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use crate::storage::Settlement;

/// Binding is a matter of milliseconds; a claim that takes longer gets another chance elsewhere.
const BOUND_WITHIN: Duration = Duration::from_secs(30);

/// Writes the settlements down, waits for the claims to be bound, and binds the pod.
pub(crate) async fn settle_and_bind(
    resources: &Resources,
    known: &Cache<PersistentVolumeClaim>,
    pod: &Pod,
    node: &str,
    settlements: &[Settlement],
) -> Result<(), Status> {
    let mut waiting = Vec::new();
    for settlement in settlements {
        waiting.push(settle(resources, node, settlement).await?);
    }
    if tokio::time::timeout(BOUND_WITHIN, until_bound(known, &waiting))
        .await
        .is_err()
    {
        for settlement in settlements {
            take_back(resources, node, settlement).await?;
        }
        let message = "the pod's claims could not be bound in time";
        return Err(Status::new(Reason::ServerTimeout, message));
    }
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let binding = Binding {
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        uid: text(&pod.metadata.uid),
        node: node.to_owned(),
    };
    resources.bind(vec![binding]).await.pop().unwrap_or(Ok(()))
}

/// Writes one settlement down; returns the claim.
async fn settle(
    resources: &Resources,
    node: &str,
    settlement: &Settlement,
) -> Result<(String, String), Status> {
    match settlement {
        Settlement::Select { namespace, claim } => {
            resources
                .modify(
                    namespace,
                    claim,
                    Part::Whole,
                    |found: &mut PersistentVolumeClaim| {
                        let annotations = found.metadata.annotations.get_or_insert_default();
                        let before = annotations.insert(claims::SELECTED_NODE.to_owned(), node.to_owned());
                        before.as_deref() != Some(node)
                    },
                )
                .await?;
            Ok((namespace.clone(), claim.clone()))
        }
        Settlement::Reserve {
            namespace,
            claim,
            volume,
        } => {
            let found: PersistentVolumeClaim = resources.get_typed(namespace, claim).await?;
            resources
                .modify("", volume, Part::Whole, |volume: &mut PersistentVolume| {
                    let is_ours = claims::fits(volume, &found);
                    let spec = volume.spec.get_or_insert_default();
                    let is_news = spec
                        .claim_ref
                        .as_ref()
                        .is_none_or(|known| known.uid != found.metadata.uid);
                    spec.claim_ref = Some(claims::reference(&found));
                    is_ours && is_news
                })
                .await?;
            Ok((namespace.clone(), claim.clone()))
        }
    }
}

async fn until_bound(known: &Cache<PersistentVolumeClaim>, waiting: &[(String, String)]) {
    let mut revision = known.revision();
    loop {
        revision.borrow_and_update();
        let is_bound = |(namespace, name): &(String, String)| {
            known
                .get(namespace, name)
                .is_some_and(|claim| claims::is_bound(&claim))
        };
        if waiting.iter().all(is_bound) {
            return;
        }
        if revision.changed().await.is_err() {
            // This replica leads no longer; the loop that asked is gone as well.
            std::future::pending::<()>().await;
        }
    }
}

/// Lets the claim be settled elsewhere.
async fn take_back(resources: &Resources, node: &str, settlement: &Settlement) -> Result<(), Status> {
    let Settlement::Select { namespace, claim } = settlement else {
        return Ok(());
    };
    let taken_back = resources.modify(
        namespace,
        claim,
        Part::Whole,
        |found: &mut PersistentVolumeClaim| {
            let is_bound = claims::volume_name(found).is_some();
            let annotations = found.metadata.annotations.get_or_insert_default();
            let is_ours = annotations.get(claims::SELECTED_NODE).map(String::as_str) == Some(node);
            !is_bound && is_ours && annotations.remove(claims::SELECTED_NODE).is_some()
        },
    );
    taken_back.await.map(drop)
}
