//! `flotilla rollout`: follows or changes the rollout of a Deployment (and the status of others).

mod history;
mod status;

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::GlobalOptions;
use crate::client::{Cluster, PatchType};
use crate::discovery::Discovery;
use crate::manifest::{self, FileOptions};
use crate::output::error::Failures;
use crate::output::{self, name};
use crate::selection::{Target, select};

/// Flags of `rollout`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show how far the rollout is, until it is done
    Status(status::Arguments),
    /// List the revisions, or show one
    History(history::HistoryArguments),
    /// Go back to an earlier revision
    Undo(history::UndoArguments),
    /// Replace all pods, a few at a time
    Restart(Subjects),
    /// Stop rolling out changes
    Pause(Subjects),
    /// Roll out changes again
    Resume(Subjects),
}

/// Which objects a rollout verb is about.
#[derive(Debug, clap::Args)]
struct Subjects {
    /// TYPE NAME…, TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]")]
    words: Vec<String>,
    #[command(flatten)]
    files: FileOptions,
    /// Objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
}

impl Subjects {
    /// The named objects; all of the kind where there is no name.
    async fn targets(&self, cluster: &mut Cluster, discovery: &Discovery) -> anyhow::Result<Vec<Target>> {
        let mut targets = Vec::new();
        if !self.files.files.is_empty() {
            for manifest in manifest::load(&self.files, discovery).await? {
                if let Some(namespace) = manifest.document.namespace() {
                    cluster.namespace = namespace.to_owned();
                }
                if HAVE_ROLLOUTS.contains(&manifest.resource.kind.as_str()) {
                    targets.push(Target {
                        names: vec![manifest.document.name().to_owned()],
                        resource: manifest.resource,
                    });
                }
            }
            return Ok(targets);
        }
        for mut target in select(discovery, &self.words)?.targets {
            if target.names.is_empty() {
                crate::get::find_names(cluster, &mut target, self.selector.as_deref()).await?;
            }
            targets.push(target);
        }
        Ok(targets)
    }
}

const HAVE_ROLLOUTS: [&str; 3] = ["Deployment", "DaemonSet", "StatefulSet"];

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let mut cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let subjects = match &arguments.action {
        Action::Status(arguments) => &arguments.subjects,
        Action::History(arguments) => &arguments.subjects,
        Action::Undo(arguments) => &arguments.subjects,
        Action::Restart(subjects) | Action::Pause(subjects) | Action::Resume(subjects) => subjects,
    };
    let mut failures = Failures::default();
    for target in subjects.targets(&mut cluster, &discovery).await? {
        if !HAVE_ROLLOUTS.contains(&target.resource.kind.as_str()) {
            bail!(
                "no rollout is known for {}: it has none of its own",
                name::qualified_plural(&target.resource)
            );
        }
        for name in &target.names {
            failures.note(act(&arguments.action, &cluster, &target, name).await);
        }
    }
    failures.end()
}

async fn act(action: &Action, cluster: &Cluster, target: &Target, name: &str) -> anyhow::Result<()> {
    match action {
        Action::Status(arguments) => status::follow(arguments, cluster, target, name).await,
        Action::History(arguments) => history::show(arguments, cluster, target, name).await,
        Action::Undo(arguments) => history::undo(arguments, cluster, target, name).await,
        Action::Restart(_) => restart(cluster, target, name).await,
        Action::Pause(_) => set_paused(cluster, target, name, true).await,
        Action::Resume(_) => set_paused(cluster, target, name, false).await,
    }
}

async fn restart(cluster: &Cluster, target: &Target, name: &str) -> anyhow::Result<()> {
    let path = target.resource.object(&cluster.namespace, name);
    if cluster.get(&path).await?["spec"]["paused"] == true {
        bail!(
            "{} can't restart paused deployment (run rollout resume first)",
            name::slashed(&target.resource, name)
        );
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    cluster.patch(&path, PatchType::Strategic, &patch).await?;
    output::line(format!("{} restarted", name::slashed(&target.resource, name)));
    Ok(())
}

async fn set_paused(cluster: &Cluster, target: &Target, name: &str, paused: bool) -> anyhow::Result<()> {
    if target.resource.kind != "Deployment" {
        bail!(
            "{} cannot be paused: only Deployments can",
            name::slashed(&target.resource, name)
        );
    }
    let path = target.resource.object(&cluster.namespace, name);
    let deployment = cluster.get(&path).await?;
    if (deployment["spec"]["paused"] == true) == paused {
        let state = if paused { "already paused" } else { "not paused" };
        bail!(
            "{} \"{name}\" is {state}",
            name::qualified_plural(&target.resource)
        );
    }
    let value = if paused { Value::Bool(true) } else { Value::Null };
    cluster
        .patch(&path, PatchType::Merge, &json!({"spec": {"paused": value}}))
        .await?;
    output::line(format!(
        "{} {}",
        name::slashed(&target.resource, name),
        if paused { "paused" } else { "resumed" }
    ));
    Ok(())
}
