//! Waits until all nodes of a new cluster are ready; says of those that are not what is known of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use flotilla_local::{LocalError, Ready};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};

const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What is known of one node when the time is over.
struct Missing {
    node: String,
    /// What its `Ready` condition says, or why there is none.
    condition: String,
    /// The end of its log.
    log: String,
}

/// Returns once every node is ready; fails when one of them ends, or when they are not within `limit`.
pub(super) async fn wait(ready: &Ready<'_>, limit: Duration) -> Result<(), LocalError> {
    let client = super::client(ready.kubeconfig)
        .await
        .map_err(|error| LocalError::NotReady(format!("{error:#}")))?;
    let api: Api<Node> = Api::all(client);
    let end = Instant::now() + limit;
    loop {
        let answer = look(&api).await;
        if answer
            .as_ref()
            .is_ok_and(|nodes| unready(ready, nodes).is_empty())
        {
            return Ok(());
        }
        ready.check()?;
        if Instant::now() > end {
            let missing = missing(ready, answer);
            return Err(LocalError::NotReady(explain(&missing, limit)));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The nodes that the cluster knows, by name.
async fn look(api: &Api<Node>) -> Result<BTreeMap<String, Node>, String> {
    let answer = tokio::time::timeout(super::REQUEST_LIMIT, api.list(&ListParams::default())).await;
    let nodes = answer
        .map_err(|_| "the API does not answer".to_owned())?
        .map_err(|error| format!("the API does not list nodes: {error}"))?;
    let named = |node: Node| Some((node.metadata.name.clone()?, node));
    Ok(nodes.items.into_iter().filter_map(named).collect())
}

fn unready<'a>(ready: &'a Ready<'_>, nodes: &BTreeMap<String, Node>) -> Vec<&'a str> {
    let is_missing = |name: &&str| !nodes.get(*name).is_some_and(is_ready);
    ready
        .nodes
        .iter()
        .map(String::as_str)
        .filter(is_missing)
        .collect()
}

fn missing(ready: &Ready<'_>, answer: Result<BTreeMap<String, Node>, String>) -> Vec<Missing> {
    let (nodes, silence) = match answer {
        Ok(nodes) => (nodes, None),
        Err(why) => (BTreeMap::new(), Some(why)),
    };
    let known = |name: &str| match (&silence, nodes.get(name)) {
        (Some(why), _) => why.clone(),
        (None, None) => "it has not registered: the cluster has no Node of this name".to_owned(),
        (None, Some(node)) => condition(node),
    };
    let missing = |name: &str| Missing {
        node: name.to_owned(),
        condition: known(name),
        log: ready.log_end(name),
    };
    unready(ready, &nodes).into_iter().map(missing).collect()
}

fn ready_condition(node: &Node) -> Option<&k8s_openapi::api::core::v1::NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

fn is_ready(node: &Node) -> bool {
    ready_condition(node).is_some_and(|ready| ready.status == "True")
}

fn condition(node: &Node) -> String {
    let Some(ready) = ready_condition(node) else {
        return "it is registered but has reported no condition yet".to_owned();
    };
    format!(
        "Ready is {}, {}: {}",
        ready.status,
        ready.reason.as_deref().unwrap_or("without a reason"),
        ready.message.as_deref().unwrap_or("without a message")
    )
}

/// One paragraph for each node, its log indented.
fn explain(missing: &[Missing], limit: Duration) -> String {
    let names: Vec<&str> = missing.iter().map(|missing| missing.node.as_str()).collect();
    let mut text = format!("not ready within {} s: {}", limit.as_secs(), names.join(", "));
    for Missing { node, condition, log } in missing {
        text += &format!("\n{node}: {condition}; the end of its log:");
        for line in log.lines() {
            text += &format!("\n  {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(conditions: serde_json::Value) -> Node {
        serde_json::from_value(serde_json::json!({"status": {"conditions": conditions}})).unwrap()
    }

    #[test]
    fn a_node_that_is_not_ready_is_explained() {
        let unready = node(serde_json::json!([
            {"type": "DiskPressure", "status": "False"},
            {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "no network"},
        ]));
        let missing = |name: &str, condition: String, log: &str| Missing {
            node: name.to_owned(),
            condition,
            log: log.to_owned(),
        };
        let missing = [
            missing("agent-1", condition(&unready), "joined\nsession open"),
            missing(
                "agent-2",
                condition(&node(serde_json::json!([]))),
                "(it is empty)",
            ),
        ];
        assert_eq!(
            explain(&missing, Duration::from_secs(60)),
            "not ready within 60 s: agent-1, agent-2\n\
             agent-1: Ready is False, KubeletNotReady: no network; the end of its log:\n  joined\n  session open\n\
             agent-2: it is registered but has reported no condition yet; the end of its log:\n  (it is empty)"
        );
    }

    #[test]
    fn only_a_true_condition_is_ready() {
        let ready = |status: &str| is_ready(&node(serde_json::json!([{"type": "Ready", "status": status}])));
        assert_eq!(["True", "False", "Unknown"].map(ready), [true, false, false]);
        assert!(!is_ready(&Node::default()));
    }
}
