//! `flotilla scale`: sets the number of replicas.

use anyhow::bail;
use serde_json::json;

use crate::GlobalOptions;
use crate::client::{Cluster, PatchType};
use crate::discovery::Discovery;
use crate::output::error::Failures;
use crate::output::{self, name};
use crate::selection::{Target, select};

/// Flags of `scale`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// TYPE NAME…, TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]", required = true)]
    words: Vec<String>,
    /// How many replicas there shall be
    #[arg(long, value_name = "NUMBER")]
    replicas: u32,
    /// Only if there are this many now
    #[arg(long, value_name = "NUMBER", default_value_t = -1, allow_negative_numbers = true)]
    current_replicas: i64,
    /// Objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let mut failures = Failures::default();
    for mut target in select(&discovery, &arguments.words)?.targets {
        if target.names.is_empty() {
            if !arguments.all && arguments.selector.is_none() {
                bail!("resource(s) were provided, but no name was specified: name them, or give -l or --all");
            }
            crate::get::find_names(&cluster, &mut target, arguments.selector.as_deref()).await?;
        }
        for name in &target.names {
            failures.note(scale(&arguments, &cluster, &target, name).await);
        }
    }
    failures.end()
}

async fn scale(arguments: &Arguments, cluster: &Cluster, target: &Target, name: &str) -> anyhow::Result<()> {
    let path = format!("{}/scale", target.resource.object(&cluster.namespace, name));
    let mut patch = json!({"spec": {"replicas": arguments.replicas}});
    if arguments.current_replicas >= 0 {
        let current = cluster.get(&path).await?;
        let replicas = current["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas != arguments.current_replicas {
            bail!(
                "Expected replicas to be {}, was {replicas}",
                arguments.current_replicas
            );
        }
        patch["metadata"] = json!({"resourceVersion": current["metadata"]["resourceVersion"]});
    }
    cluster.patch(&path, PatchType::Merge, &patch).await?;
    output::line(format!("{} scaled", name::slashed(&target.resource, name)));
    Ok(())
}
