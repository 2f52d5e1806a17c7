//! Tells people and tools who leads, by a Lease: `kubectl get lease --namespace kube-system flotilla-leader`.
//!
//! Written once per term. Nothing is decided by it: leadership is Raft's, and its term fences every write.

use std::time::Duration;

use flotilla_api::Status;
use flotilla_report::report;
use flotilla_resources::{Part, Resources};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use crate::nodes::TOKEN_NAMESPACE;

const NAME: &str = "flotilla-leader";
/// A new cluster has no namespaces yet when its first leader is elected.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Writes the Lease, however often that takes. `resources` is fenced, so a former leader's attempt comes to nothing.
pub(crate) async fn publish(resources: &Resources, leader: &str) {
    while let Err(status) = write(resources, leader).await {
        tracing::debug!(
            error = report(&status),
            "the leader's lease cannot be written yet"
        );
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn write(resources: &Resources, leader: &str) -> Result<(), Status> {
    let now = || Some(MicroTime(Timestamp::now()));
    let renewed = resources
        .modify::<Lease>(TOKEN_NAMESPACE, NAME, Part::Whole, |lease| {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = Some(leader.to_owned());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time = now();
            true
        })
        .await?;
    if renewed.is_some() {
        return Ok(());
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(TOKEN_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(leader.to_owned()),
            lease_transitions: Some(0),
            acquire_time: now(),
            ..LeaseSpec::default()
        }),
    };
    resources.create_typed(lease).await.map(drop)
}
