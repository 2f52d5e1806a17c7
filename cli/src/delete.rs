//! `flotilla delete`: deletes objects and waits until they are gone.

use anyhow::bail;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::GlobalOptions;
use crate::apply::DryRun;
use crate::client::{Cluster, RequestError, with_query};
use crate::discovery::{Discovery, Resource};
use crate::manifest::{self, FileOptions};
use crate::output::error::{AlreadyReported, explain};
use crate::output::{self, name};
use crate::selection::select;
use crate::watch::{Filter, by_name, watch};

/// Flags of `delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// TYPE NAME…, TYPE/NAME…, or TYPE with -l or --all
    #[arg(value_name = "TYPE[/NAME]")]
    words: Vec<String>,
    #[command(flatten)]
    files: FileOptions,
    /// Objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Objects with these fields
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Seconds that a pod has to end by itself
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// With --grace-period=0: do not wait for the node to confirm
    #[arg(long)]
    force: bool,
    /// The same as --grace-period=1
    #[arg(long)]
    now: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait: 30s, 2m; 0 is without limit
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    timeout: String,
    /// What becomes of objects that belong to the deleted ones: background, foreground or orphan
    #[arg(long, value_name = "HOW", default_value = "background", num_args = 0..=1, default_missing_value = "background", require_equals = true)]
    cascade: String,
    /// An object that does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Only show what would be done
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    dry_run: DryRun,
    /// name: print TYPE/NAME only
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
}

/// One object to delete.
struct Doomed {
    /// The manifest that names it.
    file: Option<String>,
    resource: Resource,
    namespace: String,
    name: String,
}

/// Runs the verb.
pub(crate) async fn run(mut arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    settle_grace(&mut arguments)?;
    let options = delete_options(&arguments)?;
    let timeout = crate::wait::parse_duration(&arguments.timeout)?;
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let mut failed = false;
    let doomed = find(&arguments, &cluster, &discovery, &mut failed).await?;
    if doomed.is_empty() && !failed && !arguments.ignore_not_found {
        output::line("No resources found");
    }
    let mut waiting = Vec::new();
    for object in doomed {
        match delete(&arguments, &cluster, &object, &options).await {
            Ok(uid) => waiting.extend(uid.map(|uid| (object, uid))),
            Err(error) if error.is_not_found() && arguments.ignore_not_found => {}
            Err(error) => {
                failed = true;
                let context = object
                    .file
                    .as_ref()
                    .map(|file| format!("error when deleting \"{file}\""));
                let error = anyhow::Error::from(error);
                output::error_line(explain(&context.into_iter().fold(error, anyhow::Error::context)));
            }
        }
    }
    if arguments.wait && arguments.dry_run == DryRun::None {
        let gone = futures::future::try_join_all(
            waiting
                .iter()
                .map(|(object, uid)| await_end(&cluster, object, uid)),
        );
        match timeout {
            None => drop(gone.await?),
            Some(limit) => match tokio::time::timeout(limit, gone).await {
                Ok(outcome) => drop(outcome?),
                Err(_) => bail!("timed out waiting for the objects to be gone"),
            },
        }
    }
    if failed {
        Err(AlreadyReported.into())
    } else {
        Ok(())
    }
}

fn settle_grace(arguments: &mut Arguments) -> anyhow::Result<()> {
    if arguments.now {
        if arguments.grace_period >= 0 {
            bail!("--now and --grace-period cannot be specified together");
        }
        arguments.grace_period = 1;
    }
    if arguments.force && arguments.grace_period < 0 {
        arguments.grace_period = 0;
    } else if arguments.force && arguments.grace_period > 0 {
        bail!("--force and --grace-period greater than 0 cannot be specified together");
    } else if arguments.grace_period == 0 && !arguments.force {
        // kubectl's habit: without --force even 0 waits for the node.
        arguments.grace_period = 1;
    }
    if arguments.force {
        output::error_line(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. \
             The resource may continue to run on the cluster indefinitely.",
        );
    }
    Ok(())
}

fn delete_options(arguments: &Arguments) -> anyhow::Result<Value> {
    let policy = match arguments.cascade.as_str() {
        "background" | "true" => "Background",
        "foreground" => "Foreground",
        "orphan" | "false" => "Orphan",
        other => {
            bail!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\"")
        }
    };
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    if arguments.grace_period >= 0 {
        options["gracePeriodSeconds"] = arguments.grace_period.into();
    }
    if arguments.dry_run == DryRun::Server {
        options["dryRun"] = json!(["All"]);
    }
    Ok(options)
}

async fn find(
    arguments: &Arguments,
    cluster: &Cluster,
    discovery: &Discovery,
    failed: &mut bool,
) -> anyhow::Result<Vec<Doomed>> {
    let mut doomed = Vec::new();
    if !arguments.files.files.is_empty() {
        for manifest in manifest::load(&arguments.files, discovery).await? {
            let namespace = manifest
                .document
                .namespace()
                .unwrap_or(&cluster.namespace)
                .to_owned();
            doomed.push(Doomed {
                file: Some(manifest.document.file.clone()),
                namespace,
                name: manifest.document.name().to_owned(),
                resource: manifest.resource,
            });
        }
        return Ok(doomed);
    }
    for target in select(discovery, &arguments.words)?.targets {
        let namespace = (!arguments.all_namespaces).then_some(cluster.namespace.as_str());
        if !target.names.is_empty() {
            if arguments.all || arguments.selector.is_some() {
                bail!("name cannot be provided when a selector or --all is specified");
            }
            let named = |name: &String| Doomed {
                file: None,
                resource: target.resource.clone(),
                namespace: cluster.namespace.clone(),
                name: name.clone(),
            };
            doomed.extend(target.names.iter().map(named));
            continue;
        }
        if !arguments.all && arguments.selector.is_none() && arguments.field_selector.is_none() {
            bail!("resource(s) were provided, but no name was specified: name them, or give -l or --all");
        }
        let selectors = [
            ("labelSelector", arguments.selector.as_deref()),
            ("fieldSelector", arguments.field_selector.as_deref()),
        ];
        match cluster
            .get(&with_query(&target.resource.collection(namespace), &selectors))
            .await
        {
            Ok(list) => doomed.extend(list["items"].as_array().into_iter().flatten().map(|item| {
                Doomed {
                    file: None,
                    resource: target.resource.clone(),
                    namespace: item["metadata"]["namespace"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    name: item["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                }
            })),
            Err(error) => {
                *failed = true;
                output::error_line(explain(&error.into()));
            }
        }
    }
    Ok(doomed)
}

/// Deletes one object; its uid if it may still be there.
async fn delete(
    arguments: &Arguments,
    cluster: &Cluster,
    object: &Doomed,
    options: &Value,
) -> Result<Option<String>, RequestError> {
    let path = object.resource.object(&object.namespace, &object.name);
    let answer = match arguments.dry_run {
        DryRun::Client => cluster.get(&path).await?,
        _ => cluster.delete(&path, options).await?,
    };
    if arguments.output.as_deref() == Some("name") {
        output::line(name::slashed(&object.resource, &object.name));
    } else {
        let verb = if arguments.force {
            "force deleted"
        } else {
            "deleted"
        };
        let kind = name::qualified_singular(&object.resource);
        output::line(format!(
            "{kind} \"{}\" {verb}{}",
            object.name,
            arguments.dry_run.suffix()
        ));
    }
    let uid = answer["details"]["uid"]
        .as_str()
        .or(answer["metadata"]["uid"].as_str());
    Ok(uid.map(str::to_owned))
}

/// Waits until the object with this uid no longer exists.
async fn await_end(cluster: &Cluster, object: &Doomed, uid: &str) -> anyhow::Result<()> {
    let path = object.resource.object(&object.namespace, &object.name);
    let collection = object.resource.collection(Some(&object.namespace));
    let fields = by_name(&object.name);
    loop {
        let found = match cluster.get(&path).await {
            Ok(found) if found["metadata"]["uid"] == uid => found,
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let revision = found["metadata"]["resourceVersion"].as_str().unwrap_or("0");
        let filter = Filter {
            fields: Some(&fields),
            ..Filter::default()
        };
        let mut events = watch(cluster, &collection, &filter, revision).await?;
        while let Some(Ok(event)) = events.next().await {
            if event.change == "DELETED" || event.object["metadata"]["uid"] != uid {
                return Ok(());
            }
        }
        // The watch ended without an answer; look again.
    }
}
