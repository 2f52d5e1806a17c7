//! Feeds the network policies of this node from what is followed, and has them enforced.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use flotilla_policies::SharedModel;
use flotilla_proto::node::NodeConfig;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::follow::{Change, Follow};
use crate::machine::Machine;

/// Feeds a model with policies, namespaces and, once there is a policy, pods of all nodes.
pub(crate) fn follow(follow: &mut Follow, shared: &SharedModel) {
    let fed = shared.clone();
    follow.on::<NetworkPolicy>(move |change| match change {
        Change::Applied(policy) => drop(fed.change(|model| model.policy(policy))),
        Change::Gone { namespace, name } => drop(fed.change(|model| model.policy_gone(namespace, name))),
        Change::Synced => fed.policies_synced(),
    });
    let fed = shared.clone();
    follow.on::<Namespace>(move |change| match change {
        Change::Applied(namespace) => drop(fed.change(|model| model.namespace(namespace))),
        Change::Gone { name, .. } => drop(fed.change(|model| model.namespace_gone(name))),
        Change::Synced => fed.namespaces_synced(),
    });
    let fed = shared.clone();
    follow.on_when::<Pod>(shared.has_policies(), move |change| match change {
        Change::Applied(pod) => drop(fed.change(|model| model.pod(pod))),
        Change::Gone { namespace, name } => drop(fed.change(|model| model.pod_gone(namespace, name))),
        Change::Synced => fed.pods_synced(),
    });
}

/// The address that policies are about, if the pod has one of its own.
pub(crate) fn own_address(pod: &Pod, addresses: &[IpAddr]) -> Option<Ipv4Addr> {
    let uses_node = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let ipv4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    ipv4.filter(|_| !uses_node)
}

/// Enforces policies until shutdown; what is in the kernel stays.
pub(crate) async fn enforce(
    machine: Arc<dyn Machine>,
    mut config: watch::Receiver<Option<NodeConfig>>,
    shutdown: CancellationToken,
) {
    let shared = machine.policies();
    let learn = |config: &Option<NodeConfig>| {
        let dns = config.as_ref().and_then(|config| config.cluster_dns.parse().ok());
        shared.change(|model| model.dns(dns));
    };
    learn(&config.borrow_and_update());
    let names = async {
        while config.changed().await.is_ok() {
            learn(&config.borrow_and_update());
        }
    };
    // Names end only with the agent; dropping them half-way loses nothing.
    tokio::select! {
        () = machine.enforce(shutdown.clone()) => {}
        () = async { names.await; shutdown.cancelled().await } => {}
    }
}
