//! `flotilla apply`: creates or changes objects so that they are as files say.
//!
//! Client-side, as kubectl does it: the manifest is remembered in an annotation, and the next
//! `apply` merges it, the new manifest and the live object three ways.

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde_json::Value;

use crate::client::{Cluster, PatchType, RequestError, with_query};
use crate::discovery::Discovery;
use crate::manifest::check::Checks;
use crate::manifest::{self, Document, FileOptions, Manifest};
use crate::output::error::{AlreadyReported, explain};
use crate::output::object::Format;
use crate::output::{self, name};
use crate::{GlobalOptions, merge};

/// How often a change is tried again after someone else was faster.
const CONFLICT_ATTEMPTS: usize = 5;

/// Flags of `apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    files: FileOptions,
    /// Only show what would be done: client sends nothing, server checks it fully
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// Unknown fields and wrong types: strict refuses them, ignore leaves them to the server
    #[arg(long, value_name = "strict|warn|ignore", default_value = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "strict")]
    validate: String,
    /// Print the objects: json, yaml, name, jsonpath=…, custom-columns=…
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
}

/// How far a change is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
pub(crate) enum DryRun {
    #[default]
    None,
    Client,
    Server,
}

impl DryRun {
    /// The query parameter.
    pub(crate) fn parameter(self) -> Option<&'static str> {
        (self == DryRun::Server).then_some("All")
    }

    /// What kubectl writes behind its messages.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }
}

/// The server's `fieldValidation` for a value of `--validate`.
pub(crate) fn field_validation(validate: &str) -> anyhow::Result<&'static str> {
    match validate {
        "strict" | "true" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "ignore" | "false" => Ok("Ignore"),
        other => bail!("invalid value {other:?} for --validate: it is strict, warn or ignore"),
    }
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    if arguments.files.files.is_empty() {
        bail!("must specify -f: a file, a folder, a URL, or - for standard input");
    }
    let format = Format::parse(arguments.output.as_deref())?;
    let validation = field_validation(&arguments.validate)?;
    let documents = manifest::read(&arguments.files).await?;
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let checks = Checks {
        fields: validation == "Strict",
        generate_name: false,
    };
    let manifests = manifest::resolve(documents, &discovery, checks)?;
    let apply = Apply {
        cluster,
        dry_run: arguments.dry_run,
        validation,
        namespace: global.namespace.clone(),
    };
    let mut failed = false;
    for manifest in &manifests {
        match apply.one(manifest).await {
            Ok((object, outcome)) => {
                if format.is_table() {
                    let subject = name::slashed(&manifest.resource, manifest.document.name());
                    output::line(format!("{subject} {outcome}{}", arguments.dry_run.suffix()));
                } else {
                    output::text(&output::object::render(&format, &object, true)?);
                }
            }
            Err(error) => {
                failed = true;
                report(&manifest.document, &error);
            }
        }
    }
    if failed {
        Err(AlreadyReported.into())
    } else {
        Ok(())
    }
}

struct Apply {
    cluster: Cluster,
    dry_run: DryRun,
    validation: &'static str,
    /// Of `-n` only: a manifest may name another namespace than the context.
    namespace: Option<String>,
}

impl Apply {
    async fn one(&self, manifest: &Manifest) -> anyhow::Result<(Value, &'static str)> {
        let (wanted, namespace) = place(manifest, self.namespace.as_deref(), &self.cluster)?;
        let path = manifest.resource.object(&namespace, manifest.document.name());
        let file = &manifest.document.file;
        // Whoever names a version means that one: trying again cannot help.
        let is_pinned = wanted.pointer("/metadata/resourceVersion").is_some();
        let mut is_warned = false;
        for _ in 0..CONFLICT_ATTEMPTS {
            let live = match self.cluster.get(&path).await {
                Ok(live) => live,
                Err(error) if error.is_not_found() => {
                    let collection = manifest.resource.collection(Some(&namespace));
                    return self.create(&collection, &wanted, file).await;
                }
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("error when retrieving current configuration of \"{file}\"")
                    });
                }
            };
            let original = merge::remembered(&live);
            if original.is_none() && !is_warned {
                is_warned = true;
                warn_about_memory(manifest);
            }
            match self
                .change(&path, &original.unwrap_or_default(), &wanted, &live)
                .await
            {
                Err(error) if error.reason() == Some("Conflict") && !is_pinned => {}
                outcome => return outcome.with_context(|| format!("error when patching \"{file}\"")),
            }
        }
        bail!(
            "{} of {file} is changed by others all the time: try again",
            manifest.document.name()
        )
    }

    async fn create(
        &self,
        collection: &str,
        wanted: &Value,
        file: &str,
    ) -> anyhow::Result<(Value, &'static str)> {
        let body = merge::remembering(wanted);
        if self.dry_run == DryRun::Client {
            return Ok((body, "created"));
        }
        let created = self.cluster.post(&self.with_options(collection), &body).await;
        Ok((
            created.with_context(|| format!("error when creating \"{file}\""))?,
            "created",
        ))
    }

    async fn change(
        &self,
        path: &str,
        original: &Value,
        wanted: &Value,
        live: &Value,
    ) -> Result<(Value, &'static str), RequestError> {
        let patch = merge::three_way(original, &merge::remembering(wanted), live);
        match patch {
            None => Ok((live.clone(), "unchanged")),
            Some(_) if self.dry_run == DryRun::Client => Ok((live.clone(), "configured")),
            Some(patch) => {
                let changed = self
                    .cluster
                    .patch(&self.with_options(path), PatchType::Merge, &patch)
                    .await?;
                Ok((changed, "configured"))
            }
        }
    }

    fn with_options(&self, path: &str) -> String {
        with_query(
            path,
            &[
                ("fieldManager", Some("flotilla-apply")),
                ("fieldValidation", Some(self.validation)),
                ("dryRun", self.dry_run.parameter()),
            ],
        )
    }
}

fn warn_about_memory(manifest: &Manifest) {
    output::error_line(format!(
        "Warning: resource {}/{} is missing the {} annotation which is required by apply. apply should only be used on \
         resources created declaratively by either create --save-config or apply. The missing annotation will be patched \
         automatically.",
        manifest.resource.plural,
        manifest.document.name(),
        merge::LAST_APPLIED,
    ));
}

/// The object with its namespace, and that namespace.
pub(crate) fn place(
    manifest: &Manifest,
    flag: Option<&str>,
    cluster: &Cluster,
) -> anyhow::Result<(Value, String)> {
    let mut object = manifest.document.value.clone();
    if !manifest.resource.namespaced {
        return Ok((object, String::new()));
    }
    let own = manifest
        .document
        .namespace()
        .filter(|namespace| !namespace.is_empty());
    if let (Some(own), Some(flag)) = (own, flag)
        && own != flag
    {
        bail!(
            "{}: the namespace from the provided object \"{own}\" does not match the namespace \"{flag}\". \
             You must pass '--namespace={own}' to perform this operation.",
            manifest.document.locate("metadata.namespace")
        );
    }
    let namespace = own.unwrap_or(&cluster.namespace).to_owned();
    object["metadata"]["namespace"] = Value::String(namespace.clone());
    Ok((object, namespace))
}

/// Prints an error about a document, and where in it the fields stand that the server names.
pub(crate) fn report(document: &Document, error: &anyhow::Error) {
    output::error_line(explain(error));
    let status = error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<RequestError>() {
            Some(RequestError::Server(status)) => Some(status),
            _ => None,
        });
    let Some(status) = status else { return };
    let causes = status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .map(|cause| cause.field.as_str());
    // Strict decoding names fields only in its text: unknown field "spec.foo".
    let quoted = status
        .message
        .split("field \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let mut fields: Vec<&str> = Vec::new();
    for field in causes.chain(quoted).filter(|field| !field.is_empty()) {
        if !fields.contains(&field) {
            fields.push(field);
            output::error_line(format!("  {}: {field}", document.locate(field)));
        }
    }
}
