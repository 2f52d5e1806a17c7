//! `flotilla rollout history` and `undo`: a Deployment's revisions are its ReplicaSets, a StatefulSet's are
//! ControllerRevisions.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::Subjects;
use crate::client::{Cluster, PatchType, with_query};
use crate::describe::pod_template;
use crate::output::object::{Format, render};
use crate::output::tabwriter::{DESCRIPTION, align};
use crate::output::{self, name};
use crate::pods::selector;
use crate::selection::Target;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// Flags of `rollout history`.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArguments {
    #[command(flatten)]
    pub(super) subjects: Subjects,
    /// Show this revision's pod template
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    revision: i64,
    /// yaml, json, name
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
}

/// Flags of `rollout undo`.
#[derive(Debug, clap::Args)]
pub(super) struct UndoArguments {
    #[command(flatten)]
    pub(super) subjects: Subjects,
    /// The revision to go back to; 0 is the one before
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    to_revision: i64,
}

/// One revision of an object's pods.
struct Revision {
    number: i64,
    /// The object that keeps it.
    object: Value,
    /// The pod template that it keeps.
    template: Value,
}

impl Revision {
    fn of_replica_set(set: Value) -> Option<Revision> {
        let number = set["metadata"]["annotations"][REVISION].as_str()?.parse().ok()?;
        let mut template = set["spec"]["template"].clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        Some(Revision {
            number,
            object: set,
            template,
        })
    }

    fn of_controller_revision(revision: Value) -> Option<Revision> {
        let mut template = revision["data"]["spec"]["template"].clone();
        template.as_object_mut()?.remove("$patch");
        Some(Revision {
            number: revision["revision"].as_i64()?,
            object: revision,
            template,
        })
    }

    fn cause(&self) -> Option<&Value> {
        self.object["metadata"]["annotations"].get(CHANGE_CAUSE)
    }
}

/// Prints the revisions, or one of them.
pub(super) async fn show(
    arguments: &HistoryArguments,
    cluster: &Cluster,
    target: &Target,
    name: &str,
) -> anyhow::Result<()> {
    let (_, revisions) = revisions(cluster, target, name).await?;
    let subject = name::slashed(&target.resource, name);
    if arguments.revision > 0 {
        let mut all = revisions.iter();
        let found = all.find(|revision| revision.number == arguments.revision);
        let revision = found.context("unable to find the specified revision")?;
        let format = Format::parse(arguments.output.as_deref())?;
        if !format.is_table() {
            output::text(&render(&format, &revision.object, true)?);
            return Ok(());
        }
        // A ReplicaSet's own label belongs to the pods that it stands for.
        let shown = match target.resource.kind.as_str() {
            "Deployment" => &revision.object["spec"]["template"],
            _ => &revision.template,
        };
        output::text(&format!(
            "{subject} with revision #{}\n{}\n",
            arguments.revision,
            align(DESCRIPTION, &pod_template(shown, &revision.object))
        ));
        return Ok(());
    }
    let mut text = "REVISION\tCHANGE-CAUSE\n".to_owned();
    for revision in &revisions {
        let cause = revision.cause().and_then(Value::as_str);
        let cause = cause.filter(|cause| !cause.is_empty());
        text.push_str(&format!("{}\t{}\n", revision.number, cause.unwrap_or("<none>")));
    }
    output::text(&format!("{subject} \n{}\n", align(DESCRIPTION, &text)));
    Ok(())
}

/// Puts the pod template of an earlier revision back.
pub(super) async fn undo(
    arguments: &UndoArguments,
    cluster: &Cluster,
    target: &Target,
    name: &str,
) -> anyhow::Result<()> {
    let (object, revisions) = revisions(cluster, target, name).await?;
    let subject = name::slashed(&target.resource, name);
    if object["spec"]["paused"] == true {
        bail!(
            "you cannot rollback a paused deployment; resume it first with 'flotilla rollout resume {subject}' and try again"
        );
    }
    let kind = target.resource.kind.to_lowercase();
    let Some(revision) = wanted(&revisions, arguments.to_revision) else {
        match arguments.to_revision {
            0 => bail!("no rollout history found for {kind} \"{name}\""),
            wanted => bail!("unable to find specified revision {wanted} in history"),
        }
    };
    if revision.template == object["spec"]["template"] {
        output::line(format!(
            "{subject} skipped rollback (current template already matches revision {})",
            revision.number
        ));
        return Ok(());
    }
    let mut patch = vec![json!({"op": "replace", "path": "/spec/template", "value": revision.template})];
    if let Some(cause) = revision.cause() {
        let escaped = CHANGE_CAUSE.replace('/', "~1");
        patch.push(json!({"op": "add", "path": format!("/metadata/annotations/{escaped}"), "value": cause}));
    }
    let path = target.resource.object(&cluster.namespace, name);
    cluster
        .patch(&path, PatchType::Json, &Value::Array(patch))
        .await?;
    output::line(format!("{subject} rolled back"));
    Ok(())
}

/// The revision with this number; 0 is the one before the newest.
fn wanted(revisions: &[Revision], number: i64) -> Option<&Revision> {
    match number {
        0 => revisions.iter().rev().nth(1),
        number => revisions.iter().find(|revision| revision.number == number),
    }
}

/// The object, and its revisions, oldest first.
async fn revisions(cluster: &Cluster, target: &Target, name: &str) -> anyhow::Result<(Value, Vec<Revision>)> {
    let (plural, keepers, read): (_, _, fn(Value) -> Option<Revision>) = match target.resource.kind.as_str() {
        "Deployment" => ("/deployments", "/replicasets", Revision::of_replica_set),
        "StatefulSet" => (
            "/statefulsets",
            "/controllerrevisions",
            Revision::of_controller_revision,
        ),
        _ => bail!(
            "the history of {} is not supported yet, only that of Deployments and StatefulSets",
            name::qualified_plural(&target.resource)
        ),
    };
    let object = cluster
        .get(&target.resource.object(&cluster.namespace, name))
        .await?;
    let collection = target
        .resource
        .collection(Some(&cluster.namespace))
        .replace(plural, keepers);
    let mut list = cluster
        .get(&with_query(
            &collection,
            &[("labelSelector", selector(&object).as_deref())],
        ))
        .await?;
    let uid = &object["metadata"]["uid"];
    let owned = |keeper: &Value| {
        let mut owners = keeper["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        owners.any(|owner| owner["uid"] == *uid && owner["controller"] == true)
    };
    let mut revisions = Vec::new();
    if let Value::Array(keepers) = list["items"].take() {
        revisions.extend(keepers.into_iter().filter(owned).filter_map(read));
    }
    revisions.sort_by_key(|revision| revision.number);
    Ok((object, revisions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_keepers_keep_the_template_that_was_written() {
        let template = json!({"metadata": {"labels": {"app": "web"}}});
        let set = json!({
            "metadata": {"annotations": {REVISION: "3", CHANGE_CAUSE: "why"}},
            "spec": {"template": {"metadata": {"labels": {"app": "web", "pod-template-hash": "x"}}}},
        });
        let revision = Revision::of_replica_set(set).unwrap();
        assert_eq!((revision.number, &revision.template), (3, &template));
        assert_eq!(revision.cause(), Some(&json!("why")));
        let kept = json!({"revision": 2, "data": {"spec": {"template": {
            "$patch": "replace", "metadata": {"labels": {"app": "web"}}}}}});
        let older = Revision::of_controller_revision(kept).unwrap();
        assert_eq!((older.number, &older.template), (2, &template));
        let all = [older, revision];
        assert_eq!(wanted(&all, 0).map(|revision| revision.number), Some(2));
        assert_eq!(wanted(&all, 3).map(|revision| revision.number), Some(3));
        assert!(wanted(&all, 7).is_none() && wanted(&all[..1], 0).is_none());
    }
}
