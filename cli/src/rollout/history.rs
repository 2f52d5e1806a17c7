//! `flotilla rollout history` and `undo`: a Deployment's revisions are its ReplicaSets.

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
        let found = revisions
            .iter()
            .find(|(revision, _)| *revision == arguments.revision);
        let (_, replica_set) = found.context("unable to find the specified revision")?;
        let format = Format::parse(arguments.output.as_deref())?;
        if !format.is_table() {
            output::text(&render(&format, replica_set, true)?);
            return Ok(());
        }
        let template = pod_template(&replica_set["spec"]["template"], replica_set);
        output::text(&format!(
            "{subject} with revision #{}\n{}\n",
            arguments.revision,
            align(DESCRIPTION, &template)
        ));
        return Ok(());
    }
    let mut text = "REVISION\tCHANGE-CAUSE\n".to_owned();
    for (revision, replica_set) in &revisions {
        let cause = replica_set["metadata"]["annotations"][CHANGE_CAUSE]
            .as_str()
            .filter(|cause| !cause.is_empty());
        text.push_str(&format!("{revision}\t{}\n", cause.unwrap_or("<none>")));
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
    let (deployment, revisions) = revisions(cluster, target, name).await?;
    let subject = name::slashed(&target.resource, name);
    if deployment["spec"]["paused"] == true {
        bail!(
            "you cannot rollback a paused deployment; resume it first with 'flotilla rollout resume {subject}' and try again"
        );
    }
    let found = match arguments.to_revision {
        0 => revisions
            .len()
            .checked_sub(2)
            .and_then(|index| revisions.get(index)),
        wanted => revisions.iter().find(|(revision, _)| *revision == wanted),
    };
    let Some((revision, replica_set)) = found else {
        match arguments.to_revision {
            0 => bail!("no rollout history found for deployment \"{name}\""),
            wanted => bail!("unable to find specified revision {wanted} in history"),
        }
    };
    let mut template = replica_set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    if template == deployment["spec"]["template"] {
        output::line(format!(
            "{subject} skipped rollback (current template already matches revision {revision})"
        ));
        return Ok(());
    }
    let mut patch = vec![json!({"op": "replace", "path": "/spec/template", "value": template})];
    if let Some(cause) = replica_set["metadata"]["annotations"].get(CHANGE_CAUSE) {
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

/// The Deployment, and its ReplicaSets by revision, oldest first.
async fn revisions(
    cluster: &Cluster,
    target: &Target,
    name: &str,
) -> anyhow::Result<(Value, Vec<(i64, Value)>)> {
    if target.resource.kind != "Deployment" {
        bail!(
            "the history of {} is not supported yet, only that of Deployments",
            name::qualified_plural(&target.resource)
        );
    }
    let deployment = cluster
        .get(&target.resource.object(&cluster.namespace, name))
        .await?;
    let collection = target
        .resource
        .collection(Some(&cluster.namespace))
        .replace("/deployments", "/replicasets");
    let mut list = cluster
        .get(&with_query(
            &collection,
            &[("labelSelector", selector(&deployment).as_deref())],
        ))
        .await?;
    let uid = &deployment["metadata"]["uid"];
    let owned = |set: &Value| {
        let mut owners = set["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        owners.any(|owner| owner["uid"] == *uid && owner["controller"] == true)
    };
    let mut revisions = Vec::new();
    if let Value::Array(sets) = list["items"].take() {
        for set in sets.into_iter().filter(owned) {
            let revision = set["metadata"]["annotations"][REVISION]
                .as_str()
                .and_then(|text| text.parse().ok());
            revisions.extend(revision.map(|revision: i64| (revision, set)));
        }
    }
    revisions.sort_by_key(|(revision, _)| *revision);
    Ok((deployment, revisions))
}
