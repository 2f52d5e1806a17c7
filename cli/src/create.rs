//! `flotilla create`: creates objects from files or, for the simple kinds, from flags.

mod generate;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::apply::{DryRun, field_validation, place, report};
use crate::client::{Cluster, with_query};
use crate::discovery::Discovery;
use crate::manifest::check::Checks;
use crate::manifest::{self, FileOptions};
use crate::output::error::AlreadyReported;
use crate::output::object::{Format, render};
use crate::{GlobalOptions, merge, output};

/// Flags of `create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    kind: Option<generate::Kind>,
    #[command(flatten)]
    files: FileOptions,
    /// Only show what would be done: client sends nothing, server checks it fully
    #[arg(long, global = true, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// Unknown fields and wrong types: strict refuses them, ignore leaves them to the server
    #[arg(long, global = true, value_name = "strict|warn|ignore", default_value = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "strict")]
    validate: String,
    /// Print the objects: json, yaml, name, jsonpath=…
    #[arg(short, long, global = true, value_name = "FORMAT")]
    output: Option<String>,
    /// Remember the manifest for a later apply
    #[arg(long, global = true)]
    save_config: bool,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let format = Format::parse(arguments.output.as_deref())?;
    let validation = field_validation(&arguments.validate)?;
    if let Some(kind) = &arguments.kind {
        let generated = generate::generate(kind)?;
        return create_generated(&arguments, global, &format, validation, generated).await;
    }
    if arguments.files.files.is_empty() {
        bail!("must specify -f, or a kind such as `flotilla create namespace NAME`");
    }
    let documents = manifest::read(&arguments.files).await?;
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let checks = Checks {
        fields: validation == "Strict",
        generate_name: true,
    };
    let create = Create {
        cluster,
        arguments: &arguments,
        format,
        validation,
    };
    let mut failed = false;
    for manifest in manifest::resolve(documents, &discovery, checks)? {
        let outcome = async {
            let (object, namespace) = place(&manifest, global.namespace.as_deref(), &create.cluster)?;
            let collection = manifest.resource.collection(Some(&namespace));
            create
                .one(&collection, object)
                .await
                .with_context(|| format!("error when creating \"{}\"", manifest.document.file))
        };
        if let Err(error) = outcome.await {
            failed = true;
            report(&manifest.document, &error);
        }
    }
    if failed {
        Err(AlreadyReported.into())
    } else {
        Ok(())
    }
}

async fn create_generated(
    arguments: &Arguments,
    global: &GlobalOptions,
    format: &Format,
    validation: &'static str,
    generated: generate::Generated,
) -> anyhow::Result<()> {
    if arguments.dry_run == DryRun::Client && !format.is_table() {
        // Nothing is asked of a server, so none is needed: this is how manifests are begun.
        output::text(&render(format, &generated.object, true)?);
        return Ok(());
    }
    let cluster = Cluster::connect(global).await?;
    let mut object = generated.object;
    let collection = match generated.namespaced {
        true => {
            object["metadata"]["namespace"] = Value::String(cluster.namespace.clone());
            format!(
                "{}/namespaces/{}/{}",
                generated.prefix,
                crate::client::escape(&cluster.namespace),
                generated.plural
            )
        }
        false => format!("{}/{}", generated.prefix, generated.plural),
    };
    let format = Format::parse(arguments.output.as_deref())?;
    let create = Create {
        cluster,
        arguments,
        format,
        validation,
    };
    create
        .one(&collection, object)
        .await
        .with_context(|| format!("failed to create {}", generated.word))
}

struct Create<'a> {
    cluster: Cluster,
    arguments: &'a Arguments,
    format: Format,
    validation: &'static str,
}

impl Create<'_> {
    async fn one(&self, collection: &str, object: Value) -> anyhow::Result<()> {
        let body = if self.arguments.save_config {
            merge::remembering(&object)
        } else {
            object
        };
        let path = with_query(
            collection,
            &[
                ("fieldManager", Some("flotilla-create")),
                ("fieldValidation", Some(self.validation)),
                ("dryRun", self.arguments.dry_run.parameter()),
            ],
        );
        let created = match self.arguments.dry_run {
            DryRun::Client => body,
            _ => self.cluster.post(&path, &body).await?,
        };
        if self.format.is_table() {
            let suffix = self.arguments.dry_run.suffix();
            output::line(format!("{} created{suffix}", output::object::reference(&created)));
        } else {
            output::text(&render(&self.format, &created, true)?);
        }
        Ok(())
    }
}
