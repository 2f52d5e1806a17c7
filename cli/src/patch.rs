//! `flotilla patch`: changes fields of objects.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::GlobalOptions;
use crate::apply::DryRun;
use crate::client::{Cluster, PatchType, with_query};
use crate::discovery::Discovery;
use crate::output::error::Failures;
use crate::output::object::{Format, render};
use crate::output::{self, name};
use crate::selection::{Target, select};

/// Flags of `patch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// TYPE NAME…, TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]", required = true)]
    words: Vec<String>,
    /// What is to change, as JSON or YAML
    #[arg(short, long, value_name = "PATCH", required_unless_present = "patch_file")]
    patch: Option<String>,
    /// A file that says what is to change
    #[arg(long, value_name = "FILE", conflicts_with = "patch")]
    patch_file: Option<PathBuf>,
    /// How the patch is to be read
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = Type::Strategic)]
    kind: Type,
    /// The part of the objects that is patched, such as status, scale or resize
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
    /// Only ask the server what would come of it
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = dry_run)]
    dry_run: DryRun,
    /// json|yaml|name|jsonpath=…|custom-columns=…
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
}

/// The kinds of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Type {
    /// Lists are merged by their keys, as Kubernetes' own kinds have them
    Strategic,
    /// Lists are replaced (RFC 7386)
    Merge,
    /// A list of operations (RFC 6902)
    Json,
}

fn dry_run(text: &str) -> Result<DryRun, String> {
    match text {
        "none" => Ok(DryRun::None),
        "server" => Ok(DryRun::Server),
        _ => Err(
            "must be \"none\" or \"server\": only the server knows what a patch makes of an object"
                .to_owned(),
        ),
    }
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let patch = read(&arguments)?;
    let format = Format::parse(arguments.output.as_deref())?;
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let mut failures = Failures::default();
    for target in select(&discovery, &arguments.words)?.targets {
        if target.names.is_empty() {
            bail!("resource(s) were provided, but no name was specified");
        }
        for name in &target.names {
            failures.note(change(&arguments, &format, &cluster, (&target, name), &patch).await);
        }
    }
    failures.end()
}

/// The patch, whose outer form must fit its type.
fn read(arguments: &Arguments) -> anyhow::Result<Value> {
    let text = match &arguments.patch_file {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        None => arguments.patch.clone().unwrap_or_default(),
    };
    let patch: Value =
        serde_yaml::from_str(&text).context("unable to parse the patch: it is neither JSON nor YAML")?;
    match arguments.kind {
        Type::Json if !patch.is_array() => {
            bail!(
                "a patch of type json is a list of operations, like [{{\"op\": \"remove\", \"path\": \"/spec/x\"}}]"
            )
        }
        Type::Strategic | Type::Merge if !patch.is_object() => {
            bail!(
                "a patch of this type is an object, like {{\"spec\": {{…}}}}; for a list of operations give --type json"
            )
        }
        _ => Ok(patch),
    }
}

async fn change(
    arguments: &Arguments,
    format: &Format,
    cluster: &Cluster,
    (target, name): (&Target, &str),
    patch: &Value,
) -> anyhow::Result<()> {
    let object = target.resource.object(&cluster.namespace, name);
    let path = match &arguments.subresource {
        Some(part) => format!("{object}/{}", crate::client::escape(part)),
        None => object,
    };
    let before = cluster.get(&path).await?;
    let query = [
        ("fieldManager", Some("flotilla-patch")),
        ("dryRun", arguments.dry_run.parameter()),
    ];
    let kind = match arguments.kind {
        Type::Strategic => PatchType::Strategic,
        Type::Merge => PatchType::Merge,
        Type::Json => PatchType::Json,
    };
    let after = cluster.patch(&with_query(&path, &query), kind, patch).await?;
    if !format.is_table() {
        output::text(&render(format, &after, true)?);
        return Ok(());
    }
    let outcome = if before == after {
        "patched (no change)"
    } else {
        "patched"
    };
    let subject = name::slashed(&target.resource, name);
    output::line(format!("{subject} {outcome}{}", arguments.dry_run.suffix()));
    Ok(())
}
