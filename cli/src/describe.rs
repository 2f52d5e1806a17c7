//! `flotilla describe`: objects in detail, laid out as kubectl does, with their events at the end.

mod allocated;
mod configuration;
mod containers;
mod events;
mod generic;
mod node;
mod pod;
mod service;
mod stateful_set;
mod text;
mod workload;

use anyhow::bail;
use serde_json::Value;

use crate::GlobalOptions;
use crate::client::{Cluster, RequestError, with_query};
use crate::discovery::Discovery;
use crate::manifest::{self, FileOptions};
use crate::output;
use crate::output::error::{AlreadyReported, explain};
use crate::output::tabwriter::{DESCRIPTION, align};
use crate::selection::{Target, select};
use text::Text;

pub(crate) use workload::pod_template;

/// Flags of `describe`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// TYPE, TYPE NAME… (also the beginning of names), TYPE/NAME…
    #[arg(value_name = "TYPE[/NAME]")]
    words: Vec<String>,
    #[command(flatten)]
    files: FileOptions,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Show events as well
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_events: bool,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let targets = if arguments.files.files.is_empty() {
        select(&discovery, &arguments.words)?.targets
    } else {
        let manifests = manifest::load(&arguments.files, &discovery).await?;
        manifests
            .into_iter()
            .map(|manifest| Target {
                names: vec![manifest.document.name().to_owned()],
                resource: manifest.resource,
            })
            .collect()
    };
    let mut failed = false;
    let mut objects = Vec::new();
    for target in &targets {
        match find(&arguments, &cluster, target).await {
            Ok(found) => objects.extend(found),
            Err(error) => {
                failed = true;
                output::error_line(explain(&error.into()));
            }
        }
    }
    if objects.is_empty() && !failed {
        if targets.is_empty() {
            bail!("there is nothing to describe");
        }
        output::error_line(format!("No resources found in {} namespace.", cluster.namespace));
    }
    for (position, object) in objects.iter().enumerate() {
        if position > 0 {
            output::text("\n\n");
        }
        output::text(&describe(&cluster, object, arguments.show_events).await?);
    }
    if failed {
        Err(AlreadyReported.into())
    } else {
        Ok(())
    }
}

async fn find(arguments: &Arguments, cluster: &Cluster, target: &Target) -> Result<Vec<Value>, RequestError> {
    let namespace = (!arguments.all_namespaces).then_some(cluster.namespace.as_str());
    let path = with_query(
        &target.resource.collection(namespace),
        &[("labelSelector", arguments.selector.as_deref())],
    );
    if target.names.is_empty() {
        return list(cluster, target, &path).await;
    }
    let mut objects = Vec::new();
    for name in &target.names {
        match cluster
            .get(&target.resource.object(&cluster.namespace, name))
            .await
        {
            Ok(object) => objects.push(object),
            // kubectl's habit: the beginning of a name will do.
            Err(error) if error.is_not_found() => {
                let begins = |object: &Value| {
                    object["metadata"]["name"]
                        .as_str()
                        .is_some_and(|found| found.starts_with(name.as_str()))
                };
                let found: Vec<Value> = list(cluster, target, &path)
                    .await?
                    .into_iter()
                    .filter(begins)
                    .collect();
                if found.is_empty() {
                    return Err(error);
                }
                objects.extend(found);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(objects)
}

async fn list(cluster: &Cluster, target: &Target, path: &str) -> Result<Vec<Value>, RequestError> {
    let mut list = cluster.get(path).await?;
    let Value::Array(mut items) = list["items"].take() else {
        return Ok(Vec::new());
    };
    for item in &mut items {
        item["apiVersion"] = target.resource.api_version().into();
        item["kind"] = target.resource.kind.as_str().into();
    }
    Ok(items)
}

async fn describe(cluster: &Cluster, object: &Value, show_events: bool) -> Result<String, RequestError> {
    let mut text = Text::default();
    let kind = object["kind"].as_str().unwrap_or_default();
    match kind {
        "Pod" => pod::describe(&mut text, object),
        "Node" => node::describe(&mut text, object, &pods_of_node(cluster, object).await?),
        "Deployment" => {
            workload::deployment(&mut text, object, &workload::replica_sets(cluster, object).await?)
        }
        "ReplicaSet" | "ReplicationController" => {
            workload::replica_set(&mut text, object, &workload::pods(cluster, object).await?);
        }
        "StatefulSet" => stateful_set::describe(&mut text, object, &workload::pods(cluster, object).await?),
        "Service" => service::describe(
            &mut text,
            object,
            &service::endpoint_slices(cluster, object).await?,
        ),
        "Namespace" => configuration::namespace(&mut text, object),
        "ConfigMap" => configuration::config_map(&mut text, object),
        "Secret" => configuration::secret(&mut text, object),
        "ServiceAccount" => configuration::service_account(&mut text, object),
        _ => generic::describe(&mut text, object),
    }
    if show_events && !matches!(kind, "Namespace" | "Secret" | "Event") {
        let now = jiff::Timestamp::now();
        events::describe(&mut text, &events::about(cluster, object).await?, now);
    }
    Ok(align(DESCRIPTION, &text.finish()))
}

async fn pods_of_node(cluster: &Cluster, node: &Value) -> Result<Vec<Value>, RequestError> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let fields = format!("spec.nodeName={name},status.phase!=Failed,status.phase!=Succeeded");
    let mut list = cluster
        .get(&with_query("/api/v1/pods", &[("fieldSelector", Some(&fields))]))
        .await?;
    Ok(match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    })
}
