//! The pods of an object: itself, or those that its selector picks.

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::client::{Cluster, escape, with_query};
use crate::discovery::Discovery;
use crate::output::{self, name};
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

/// One pod: the named one, or the readiest of an object that has pods.
pub(crate) async fn one(cluster: &Cluster, subject: &str) -> anyhow::Result<Value> {
    if !subject.contains('/') {
        // The usual case needs no discovery.
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}",
            escape(&cluster.namespace),
            escape(subject)
        );
        return Ok(cluster.get(&path).await?);
    }
    let discovery = Discovery::load(cluster).await?;
    let pods = of_word(cluster, &discovery, &[subject.to_owned()]).await?;
    if pods.len() > 1 {
        output::error_line(format!(
            "Found {} pods, using pod/{}",
            pods.len(),
            pods[0]["metadata"]["name"].as_str().unwrap_or_default()
        ));
    }
    pods.into_iter()
        .next()
        .with_context(|| format!("{subject} has no pods"))
}

/// A container of a pod, and what is to be said about the choice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) container: String,
    pub(crate) notice: Option<String>,
}

/// The container that is wanted, else the annotated one, else the first.
pub(crate) fn container(pod: &Value, wanted: Option<&str>) -> anyhow::Result<Choice> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = |field: &str| -> Vec<&str> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str()).collect()
    };
    let main = names("containers");
    let marked = [("ephemeralContainers", "ephem"), ("initContainers", "init")];
    let others: Vec<(&str, &str)> = marked
        .into_iter()
        .flat_map(|(field, mark)| names(field).into_iter().map(move |name| (name, mark)))
        .collect();
    let known: Vec<&str> = main
        .iter()
        .copied()
        .chain(others.iter().map(|(name, _)| *name))
        .collect();
    let chosen = |container: &str| Choice {
        container: container.to_owned(),
        notice: None,
    };
    if let Some(wanted) = wanted {
        if !known.contains(&wanted) {
            bail!(
                "container {wanted} is not valid for pod {pod_name}: it has {}",
                known.join(", ")
            );
        }
        return Ok(chosen(wanted));
    }
    let annotated = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    if let Some(container) = annotated.filter(|name| known.contains(name)) {
        return Ok(chosen(container));
    }
    let first = main
        .first()
        .with_context(|| format!("pod {pod_name} has no container"))?;
    let shown = main.iter().map(|name| (*name).to_owned());
    let shown: Vec<String> = shown
        .chain(others.iter().map(|(name, mark)| format!("{name} ({mark})")))
        .collect();
    Ok(Choice {
        container: (*first).to_owned(),
        notice: (known.len() > 1)
            .then(|| format!("Defaulted container \"{first}\" out of: {}", shown.join(", "))),
    })
}

/// All pods with these labels.
pub(crate) async fn by_labels(cluster: &Cluster, selector: &str) -> anyhow::Result<Vec<Value>> {
    let path = format!("/api/v1/namespaces/{}/pods", escape(&cluster.namespace));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(annotation: &str, wanted: Option<&str>, expected: &str) {
        let pod = json!({
            "metadata": {
                "name": "web", "annotations": {"kubectl.kubernetes.io/default-container": annotation},
            },
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
        });
        let found = match container(&pod, wanted) {
            Ok(Choice { container, notice }) => format!("{container}; {}", notice.unwrap_or_default()),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_container_is_named_annotated_or_the_first() {
        check("", Some("i"), "i; ");
        check("b", None, "b; ");
        check("x", None, "a; Defaulted container \"a\" out of: a, b, i (init)");
        check(
            "",
            Some("x"),
            "container x is not valid for pod web: it has a, b, i",
        );
    }
}
