//! The pods of an object: itself, or those that its selector picks.

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::client::{Cluster, with_query};
use crate::discovery::Discovery;
use crate::output::name;
use crate::selection::select;

/// The pods that `NAME` (a pod) or `TYPE/NAME` mean, the readiest first.
pub(crate) async fn of_word(
    cluster: &Cluster,
    discovery: &Discovery,
    words: &[String],
) -> anyhow::Result<Vec<Value>> {
    let words = match words {
        [name] if !name.contains('/') => vec!["pod".to_owned(), name.clone()],
        words => words.to_vec(),
    };
    let selection = select(discovery, &words)?;
    let [target] = selection.targets.as_slice() else {
        bail!("name one pod, or one object that has pods");
    };
    let [name] = target.names.as_slice() else {
        bail!("name one pod, or one object that has pods");
    };
    let object = cluster
        .get(&target.resource.object(&cluster.namespace, name))
        .await?;
    if target.resource.kind == "Pod" {
        return Ok(vec![object]);
    }
    let subject = name::slashed(&target.resource, name);
    let selector = selector(&object).with_context(|| format!("{subject} has no selector of pods"))?;
    let mut pods = by_labels(cluster, &selector).await?;
    if pods.is_empty() {
        bail!("{subject} has no pods yet: `flotilla describe {subject}` tells why");
    }
    pods.sort_by_key(|pod| std::cmp::Reverse(readiness(pod)));
    Ok(pods)
}

/// All pods with these labels.
pub(crate) async fn by_labels(cluster: &Cluster, selector: &str) -> anyhow::Result<Vec<Value>> {
    let path = format!(
        "/api/v1/namespaces/{}/pods",
        crate::client::escape(&cluster.namespace)
    );
    let mut list = cluster
        .get(&with_query(&path, &[("labelSelector", Some(selector))]))
        .await?;
    Ok(match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    })
}

/// An object's `spec.selector` as a query: a map of labels, or a LabelSelector.
pub(crate) fn selector(object: &Value) -> Option<String> {
    let selector = object["spec"]["selector"].as_object()?;
    let is_label_selector = selector.contains_key("matchLabels") || selector.contains_key("matchExpressions");
    let labels = if is_label_selector {
        selector.get("matchLabels").and_then(Value::as_object)
    } else {
        Some(selector)
    };
    let mut parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if is_label_selector {
        parts.extend(
            selector
                .get("matchExpressions")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(expression),
        );
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// One entry of `matchExpressions` in the words of a query.
pub(crate) fn expression(expression: &Value) -> String {
    let key = expression["key"].as_str().unwrap_or_default();
    let values: Vec<&str> = expression["values"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    match expression["operator"].as_str() {
        Some("In") => format!("{key} in ({})", values.join(",")),
        Some("NotIn") => format!("{key} notin ({})", values.join(",")),
        Some("DoesNotExist") => format!("!{key}"),
        _ => key.to_owned(),
    }
}

fn readiness(pod: &Value) -> (bool, bool) {
    let ready = pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    (ready, pod["status"]["phase"] == "Running")
}
