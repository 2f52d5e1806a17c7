//! `flotilla rollout status`.

use anyhow::bail;
use futures::StreamExt as _;
use serde_json::Value;

use super::Subjects;
use crate::client::Cluster;
use crate::output;
use crate::selection::Target;
use crate::watch::{Filter, by_name, watch};

/// Flags of `rollout status`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) subjects: Subjects,
    /// Go on until the rollout is done
    #[arg(short, long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    watch: bool,
    /// How long to wait: 30s, 2m; 0 is without limit
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    timeout: String,
    /// Only this revision; another one in its place is an error
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    revision: i64,
}

/// How far a rollout is.
#[derive(Debug, PartialEq)]
enum Progress {
    Waiting(String),
    Done(String),
    Failed(String),
}

/// Prints each step until the rollout is done.
pub(super) async fn follow(
    arguments: &Arguments,
    cluster: &Cluster,
    target: &Target,
    name: &str,
) -> anyhow::Result<()> {
    let steps = steps(arguments, cluster, target, name);
    match crate::wait::parse_duration(&arguments.timeout)? {
        None => steps.await,
        Some(limit) => match tokio::time::timeout(limit, steps).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("timed out waiting for the condition"),
        },
    }
}

async fn steps(arguments: &Arguments, cluster: &Cluster, target: &Target, name: &str) -> anyhow::Result<()> {
    let path = target.resource.object(&cluster.namespace, name);
    let collection = target.resource.collection(Some(&cluster.namespace));
    let fields = by_name(name);
    let filter = Filter {
        fields: Some(&fields),
        ..Filter::default()
    };
    let mut printed = String::new();
    loop {
        let object = cluster.get(&path).await?;
        if step(arguments, &object, &mut printed)? {
            return Ok(());
        }
        let revision = object["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        let mut events = watch(cluster, &collection, &filter, revision).await?;
        // A watch that breaks off is no end: the loop looks again.
        while let Some(Ok(event)) = events.next().await {
            match event.change.as_str() {
                "DELETED" => bail!("object has been deleted"),
                "ADDED" | "MODIFIED" if step(arguments, &event.object, &mut printed)? => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Prints one step, unless it was printed just before; true when there is nothing to wait for.
fn step(arguments: &Arguments, object: &Value, printed: &mut String) -> anyhow::Result<bool> {
    check_revision(arguments.revision, object)?;
    match progress(object) {
        Progress::Failed(message) => bail!(message),
        Progress::Done(message) => {
            output::line(message);
            Ok(true)
        }
        Progress::Waiting(message) => {
            if *printed != message {
                output::line(&message);
            }
            *printed = message;
            Ok(!arguments.watch)
        }
    }
}

fn check_revision(wanted: i64, object: &Value) -> anyhow::Result<()> {
    let revision: Option<i64> = object["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
        .as_str()
        .and_then(|text| text.parse().ok());
    match revision {
        Some(revision) if wanted > 0 && revision != wanted => {
            bail!("desired revision ({wanted}) is different from the running revision ({revision})")
        }
        _ => Ok(()),
    }
}

fn progress(object: &Value) -> Progress {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match object["kind"].as_str() {
        Some("DaemonSet") => daemon_set(name, object),
        Some("StatefulSet") => stateful_set(object),
        _ => deployment(name, object),
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn is_observed(object: &Value) -> bool {
    number(&object["metadata"]["generation"]) <= number(&object["status"]["observedGeneration"])
}

fn deployment(name: &str, object: &Value) -> Progress {
    if !is_observed(object) {
        return Progress::Waiting("Waiting for deployment spec update to be observed...".to_owned());
    }
    let status = &object["status"];
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    if conditions.any(|condition| {
        condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded"
    }) {
        return Progress::Failed(format!("deployment \"{name}\" exceeded its progress deadline"));
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let (replicas, updated, available) = (
        number(&status["replicas"]),
        number(&status["updatedReplicas"]),
        number(&status["availableReplicas"]),
    );
    let what = if updated < wanted {
        format!("{updated} out of {wanted} new replicas have been updated...")
    } else if replicas > updated {
        format!("{} old replicas are pending termination...", replicas - updated)
    } else if available < updated {
        format!("{available} of {updated} updated replicas are available...")
    } else {
        return Progress::Done(format!("deployment \"{name}\" successfully rolled out"));
    };
    Progress::Waiting(format!(
        "Waiting for deployment \"{name}\" rollout to finish: {what}"
    ))
}

fn daemon_set(name: &str, object: &Value) -> Progress {
    if object["spec"]["updateStrategy"]["type"] == "OnDelete" {
        return Progress::Failed(
            "rollout status is only available for RollingUpdate strategy type".to_owned(),
        );
    }
    if !is_observed(object) {
        return Progress::Waiting("Waiting for daemon set spec update to be observed...".to_owned());
    }
    let status = &object["status"];
    let wanted = number(&status["desiredNumberScheduled"]);
    let (updated, available) = (
        number(&status["updatedNumberScheduled"]),
        number(&status["numberAvailable"]),
    );
    let what = if updated < wanted {
        format!("{updated} out of {wanted} new pods have been updated...")
    } else if available < wanted {
        format!("{available} of {wanted} updated pods are available...")
    } else {
        return Progress::Done(format!("daemon set \"{name}\" successfully rolled out"));
    };
    Progress::Waiting(format!(
        "Waiting for daemon set \"{name}\" rollout to finish: {what}"
    ))
}

fn stateful_set(object: &Value) -> Progress {
    let (spec, status) = (&object["spec"], &object["status"]);
    if spec["updateStrategy"]["type"] == "OnDelete" {
        return Progress::Failed(
            "rollout status is only available for RollingUpdate strategy type".to_owned(),
        );
    }
    if status["observedGeneration"].is_null() || !is_observed(object) {
        return Progress::Waiting("Waiting for statefulset spec update to be observed...".to_owned());
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (ready, updated) = (
        number(&status["readyReplicas"]),
        number(&status["updatedReplicas"]),
    );
    if ready < wanted {
        return Progress::Waiting(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    let partition = number(&spec["updateStrategy"]["rollingUpdate"]["partition"]);
    let revision = status["updateRevision"].as_str().unwrap_or_default();
    if partition > 0 {
        if updated < wanted - partition {
            return Progress::Waiting(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...",
                wanted - partition
            ));
        }
        return Progress::Done(format!(
            "partitioned roll out complete: {updated} new pods have been updated..."
        ));
    }
    if status["updateRevision"] != status["currentRevision"] {
        return Progress::Waiting(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {revision}..."
        ));
    }
    let current = number(&status["currentReplicas"]);
    Progress::Done(format!(
        "statefulset rolling update complete {current} pods at revision {revision}..."
    ))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(status: Value, expected: Expect) {
        let object = json!({"kind": "Deployment", "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status});
        expected.assert_eq(&format!("{:?}", progress(&object)));
    }

    #[test]
    fn a_deployment_tells_what_it_waits_for() {
        check(
            json!({"observedGeneration": 1}),
            expect![[r#"Waiting("Waiting for deployment spec update to be observed...")"#]],
        );
        check(
            json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1}),
            expect![[
                r#"Waiting("Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...")"#
            ]],
        );
        check(
            json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3}),
            expect![[
                r#"Waiting("Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...")"#
            ]],
        );
        check(
            json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}),
            expect![[
                r#"Waiting("Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...")"#
            ]],
        );
        check(
            json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}),
            expect![[r#"Done("deployment \"web\" successfully rolled out")"#]],
        );
        check(
            json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}),
            expect![[r#"Failed("deployment \"web\" exceeded its progress deadline")"#]],
        );
    }
}
