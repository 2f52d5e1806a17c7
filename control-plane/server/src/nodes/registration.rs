//! Writes down that a node is there: its object, its pod addresses, its status.

use std::{collections::BTreeSet, net::Ipv4Addr};

use flotilla_api::Reason;
use flotilla_proto::node::NodeConfig;
use flotilla_resources::Part;
use k8s_openapi::api::core::v1::{Node, NodeSpec};
use tonic::Status;

use super::Assignments;

/// Addresses per node: a /24.
const NODE_PREFIX: u32 = 24;

/// Creates or updates the Node object from what the agent says of itself, and returns what the agent has to know.
pub(super) async fn register(
    assignments: &Assignments,
    name: &str,
    node_json: &[u8],
) -> Result<NodeConfig, Status> {
    let reported: Node = serde_json::from_slice(node_json)
        .map_err(|error| Status::invalid_argument(format!("the node's description is malformed: {error}")))?;
    let pod_cidr = ensure(assignments, name, &reported).await?;
    assignments
        .resources
        .modify::<Node>("", name, Part::Status, |node| report(node, &reported))
        .await
        .map_err(unavailable)?;
    Ok(NodeConfig {
        pod_cidr,
        cluster_cidr: assignments.network.cidr.clone(),
        cluster_dns: assignments.network.dns.to_string(),
        cluster_domain: "cluster.local".into(),
        service_cidr: assignments.resources.service_cidr().to_string(),
    })
}

fn unavailable(status: flotilla_api::Status) -> Status {
    Status::unavailable(status.message)
}

/// Sees to it that the Node exists with the agent's labels and with pod addresses; returns these.
async fn ensure(assignments: &Assignments, name: &str, reported: &Node) -> Result<String, Status> {
    let _one_at_a_time = assignments.registration.lock().await;
    let resources = &assignments.resources;
    let free = || free_cidr(&assignments.network.cidr, &used_cidrs(assignments));
    let (mut found, mut exhausted) = (None, false);
    resources
        .modify::<Node>("", name, Part::Whole, |node| {
            let cidr = node
                .spec
                .as_ref()
                .and_then(|spec| spec.pod_cidr.clone())
                .or_else(free);
            exhausted = cidr.is_none();
            found = cidr.clone();
            cidr.is_some_and(|cidr| describe(node, reported, &cidr))
        })
        .await
        .map_err(unavailable)?;
    if let Some(cidr) = found {
        return Ok(cidr);
    }
    let cidr = free().filter(|_| !exhausted).ok_or_else(|| {
        Status::resource_exhausted(format!(
            "no addresses are left for this node in {}",
            assignments.network.cidr
        ))
    })?;
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    describe(&mut node, reported, &cidr);
    match resources.create_typed(node).await {
        Ok(_) => Ok(cidr),
        Err(status) if status.reason == Reason::AlreadyExists => {
            Err(Status::unavailable("the node was registered meanwhile"))
        }
        Err(status) => Err(unavailable(status)),
    }
}

fn used_cidrs(assignments: &Assignments) -> BTreeSet<String> {
    // The store's own state, not the cache: a node registered a moment ago must count.
    let (nodes, _) = assignments.resources.list_typed::<Node>(None);
    nodes
        .iter()
        .filter_map(|node| node.spec.as_ref()?.pod_cidr.clone())
        .collect()
}

/// The lowest part of the cluster's addresses that no node has.
fn free_cidr(cluster_cidr: &str, used: &BTreeSet<String>) -> Option<String> {
    let (base, prefix) = cluster_cidr.split_once('/')?;
    let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
    let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix <= NODE_PREFIX)?;
    (0..1_u32 << (NODE_PREFIX - prefix))
        .map(|index| {
            format!(
                "{}/{NODE_PREFIX}",
                Ipv4Addr::from(base + (index << (32 - NODE_PREFIX)))
            )
        })
        .find(|cidr| !used.contains(cidr))
}

/// Labels, annotations and addresses of the node; false when it has them all.
fn describe(node: &mut Node, reported: &Node, cidr: &str) -> bool {
    let before = node.clone();
    let labels = node.metadata.labels.get_or_insert_default();
    labels.extend(reported.metadata.labels.clone().unwrap_or_default());
    if let Some(annotations) = reported.metadata.annotations.clone() {
        node.metadata
            .annotations
            .get_or_insert_default()
            .extend(annotations);
    }
    let spec = node.spec.get_or_insert_with(NodeSpec::default);
    spec.pod_cidr = Some(cidr.to_owned());
    spec.pod_cidrs = Some(vec![cidr.to_owned()]);
    *node != before
}

/// Takes over the reported status. A condition keeps its transition time while its status stays; conditions that the
/// agent does not know of stay. False when nothing changed.
fn report(node: &mut Node, reported: &Node) -> bool {
    let Some(mut status) = reported.status.clone() else {
        return false;
    };
    let before = node.status.take().unwrap_or_default();
    let old = before.conditions.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for condition in conditions.iter_mut() {
        let known = old
            .iter()
            .find(|known| known.type_ == condition.type_ && known.status == condition.status);
        if let Some(known) = known {
            condition.last_transition_time = known.last_transition_time.clone();
        }
    }
    let foreign = old
        .into_iter()
        .filter(|known| !conditions.iter().any(|condition| condition.type_ == known.type_));
    let foreign: Vec<_> = foreign.collect();
    conditions.extend(foreign);
    let changed = status != before;
    node.status = Some(status);
    changed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn free(cluster: &str, used: &[&str]) -> String {
        let used = used.iter().map(|cidr| (*cidr).to_owned()).collect();
        free_cidr(cluster, &used).unwrap_or_else(|| "none".into())
    }

    #[test]
    fn the_lowest_free_addresses_are_given() {
        assert_eq!(free("10.42.0.0/16", &[]), "10.42.0.0/24");
        assert_eq!(
            free("10.42.0.0/16", &["10.42.0.0/24", "10.42.2.0/24"]),
            "10.42.1.0/24"
        );
        assert_eq!(free("10.42.0.0/23", &["10.42.0.0/24", "10.42.1.0/24"]), "none");
        assert_eq!(free("nonsense", &[]), "none");
    }

    fn node(conditions: &serde_json::Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}}))
            .unwrap()
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut stored = node(&json!([
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Mine", "status": "True"},
        ]));
        let later = "2026-01-02T00:00:00Z";
        let again = node(&json!([{"type": "Ready", "status": "True", "lastTransitionTime": later}]));
        assert!(!report(&mut stored, &again));
        let lost = node(&json!([{"type": "Ready", "status": "False", "lastTransitionTime": later}]));
        assert!(report(&mut stored, &lost));
        let conditions = stored.status.unwrap().conditions.unwrap();
        assert_eq!(conditions.len(), 2);
        assert_eq!(
            conditions[0].last_transition_time.as_ref().unwrap().0.to_string(),
            later
        );
    }
}
