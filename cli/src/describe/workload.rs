//! Deployments, ReplicaSets and ReplicationControllers, and their pod templates.

use serde_json::Value;

use super::text::{Text, controller, items, selector, text, time};
use super::{containers, pod};
use crate::client::{Cluster, RequestError, escape, with_query};

/// Writes a Deployment with its ReplicaSets.
pub(super) fn deployment(out: &mut Text, deployment: &Value, sets: &[Value]) {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    out.name(deployment);
    out.field(
        0,
        "CreationTimestamp",
        time(&deployment["metadata"]["creationTimestamp"]),
    );
    out.metadata(deployment);
    out.field(0, "Selector", selector(deployment));
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    out.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            spec["replicas"].as_i64().unwrap_or(1),
            number("updatedReplicas"),
            number("replicas"),
            number("availableReplicas"),
            number("unavailableReplicas")
        ),
    );
    out.field(0, "StrategyType", text(&spec["strategy"]["type"]));
    out.field(
        0,
        "MinReadySeconds",
        spec["minReadySeconds"].as_i64().unwrap_or(0).to_string(),
    );
    if let rolling @ Value::Object(_) = &spec["strategy"]["rollingUpdate"] {
        let shown = format!(
            "{} max unavailable, {} max surge",
            text(&rolling["maxUnavailable"]),
            text(&rolling["maxSurge"])
        );
        out.field(0, "RollingUpdateStrategy", shown);
    }
    template(out, &spec["template"]);
    conditions(out, status);
    let revision =
        |object: &Value| text(&object["metadata"]["annotations"]["deployment.kubernetes.io/revision"]);
    let shown = |set: &&Value| {
        let (name, ready) = (
            text(&set["metadata"]["name"]),
            set["status"]["replicas"].as_i64().unwrap_or(0),
        );
        format!(
            "{name} ({ready}/{} replicas created)",
            text(&set["spec"]["replicas"])
        )
    };
    let (new, old): (Vec<&Value>, Vec<&Value>) =
        sets.iter().partition(|set| revision(set) == revision(deployment));
    out.field(
        0,
        "OldReplicaSets",
        old.iter().map(shown).collect::<Vec<_>>().join(", "),
    );
    out.field(0, "NewReplicaSet", new.first().map(shown).unwrap_or_default());
}

/// Writes a ReplicaSet or a ReplicationController, with how its pods do.
pub(super) fn replica_set(out: &mut Text, set: &Value, pods: &[Value]) {
    out.name(set);
    out.field(0, "Selector", selector(set));
    out.metadata(set);
    if let Some(controller) = controller(set) {
        out.field(0, "Controlled By", controller);
    }
    let current = set["status"]["replicas"].as_i64().unwrap_or(0);
    out.field(
        0,
        "Replicas",
        format!("{current} current / {} desired", text(&set["spec"]["replicas"])),
    );
    out.field(0, "Pods Status", pods_status(pods));
    template(out, &set["spec"]["template"]);
    conditions(out, &set["status"]);
}

/// How many pods are in which phase.
pub(super) fn pods_status(pods: &[Value]) -> String {
    let count = |phase: &str| pods.iter().filter(|pod| pod["status"]["phase"] == phase).count();
    format!(
        "{} Running / {} Waiting / {} Succeeded / {} Failed",
        count("Running"),
        count("Pending"),
        count("Succeeded"),
        count("Failed")
    )
}

/// A pod template alone, with `change` as the object whose cause of change is told.
pub(crate) fn pod_template(template_object: &Value, change: &Value) -> String {
    let mut out = Text::default();
    let mut shown = template_object.clone();
    if let Some(cause) = change["metadata"]["annotations"]["kubernetes.io/change-cause"].as_str() {
        shown["metadata"]["annotations"]["kubernetes.io/change-cause"] = cause.into();
    }
    template(&mut out, &shown);
    out.finish()
}

pub(super) fn template(out: &mut Text, template: &Value) {
    let spec = &template["spec"];
    out.line(0, "Pod Template:");
    out.labels(1, "Labels", &template["metadata"]["labels"]);
    if template["metadata"]["annotations"]
        .as_object()
        .is_some_and(|map| !map.is_empty())
    {
        out.annotations(1, &template["metadata"]["annotations"]);
    }
    if let Some(account) = spec["serviceAccountName"].as_str() {
        out.field(1, "Service Account", account);
    }
    containers::of_template(out, "Init Containers", items(&spec["initContainers"]));
    containers::of_template(out, "Containers", items(&spec["containers"]));
    pod::volumes(out, 1, spec);
    pod::placement(out, 1, spec);
}

fn conditions(out: &mut Text, status: &Value) {
    if items(&status["conditions"]).is_empty() {
        return;
    }
    out.line(0, "Conditions:");
    out.line(1, "Type\tStatus\tReason");
    out.line(1, "----\t------\t------");
    for condition in items(&status["conditions"]) {
        out.line(
            1,
            format!(
                "{} \t{}\t{}",
                text(&condition["type"]),
                text(&condition["status"]),
                text(&condition["reason"])
            ),
        );
    }
}

/// The ReplicaSets that a Deployment owns.
pub(super) async fn replica_sets(cluster: &Cluster, deployment: &Value) -> Result<Vec<Value>, RequestError> {
    owned(cluster, deployment, "/apis/apps/v1", "replicasets").await
}

/// The pods that an object owns.
pub(super) async fn pods(cluster: &Cluster, owner: &Value) -> Result<Vec<Value>, RequestError> {
    owned(cluster, owner, "/api/v1", "pods").await
}

async fn owned(
    cluster: &Cluster,
    owner: &Value,
    prefix: &str,
    plural: &str,
) -> Result<Vec<Value>, RequestError> {
    let namespace = owner["metadata"]["namespace"].as_str().unwrap_or_default();
    let path = format!("{prefix}/namespaces/{}/{plural}", escape(namespace));
    let mut list = cluster
        .get(&with_query(&path, &[("labelSelector", Some(&selector(owner)))]))
        .await?;
    let Value::Array(found) = list["items"].take() else {
        return Ok(Vec::new());
    };
    let uid = &owner["metadata"]["uid"];
    Ok(found
        .into_iter()
        .filter(|object| {
            items(&object["metadata"]["ownerReferences"])
                .iter()
                .any(|owner| owner["uid"] == *uid)
        })
        .collect())
}
