//! `flotilla set`: changes a single feature of objects; so far the images of containers.

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::GlobalOptions;
use crate::client::{Cluster, PatchType};
use crate::discovery::Discovery;
use crate::output::error::Failures;
use crate::output::{self, name};
use crate::selection::{Target, select};

/// Flags of `set`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    feature: Feature,
}

#[derive(Debug, Subcommand)]
enum Feature {
    /// Set the images of containers
    Image(ImageArguments),
}

/// Flags of `set image`.
#[derive(Debug, clap::Args)]
struct ImageArguments {
    /// TYPE NAME… CONTAINER=IMAGE…; * stands for all containers
    #[arg(value_name = "TYPE[/NAME] | CONTAINER=IMAGE", required = true)]
    words: Vec<String>,
    /// Objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let Feature::Image(arguments) = arguments.feature;
    let (images, words): (Vec<&String>, Vec<&String>) =
        arguments.words.iter().partition(|word| word.contains('='));
    let images: Vec<(&str, &str)> = images
        .into_iter()
        .filter_map(|word| word.split_once('='))
        .collect();
    if images.is_empty() {
        bail!("at least one image update is required: CONTAINER=IMAGE");
    }
    let words: Vec<String> = words.into_iter().cloned().collect();
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let mut failures = Failures::default();
    for target in select(&discovery, &words)?.targets {
        if target.names.is_empty() && !arguments.all && arguments.selector.is_none() {
            bail!("name the objects, or give -l or --all");
        }
        for object in crate::get::fetch_all(&cluster, &target, arguments.selector.as_deref()).await? {
            failures.note(set_images(&cluster, &target, &object, &images).await);
        }
    }
    failures.end()
}

async fn set_images(
    cluster: &Cluster,
    target: &Target,
    object: &Value,
    images: &[(&str, &str)],
) -> anyhow::Result<()> {
    let pod_spec = match target.resource.kind.as_str() {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut operations = Vec::new();
    for (container, image) in images {
        let found = changes(object, pod_spec, container, image);
        if found.is_empty() {
            bail!("unable to find container named \"{container}\"");
        }
        operations.extend(found.into_iter().flatten());
    }
    if operations.is_empty() {
        return Ok(());
    }
    cluster
        .patch(
            &target.resource.object(&cluster.namespace, name),
            PatchType::Json,
            &Value::Array(operations),
        )
        .await?;
    output::line(format!("{} image updated", name::slashed(&target.resource, name)));
    Ok(())
}

/// One entry per container of that name, empty where the image is the same already.
fn changes(object: &Value, pod_spec: &str, container: &str, image: &str) -> Vec<Option<Value>> {
    let mut out = Vec::new();
    for field in ["containers", "initContainers"] {
        let list = object
            .pointer(&format!("{pod_spec}/{field}"))
            .and_then(Value::as_array);
        for (index, found) in list.into_iter().flatten().enumerate() {
            if container != "*" && found["name"] != container {
                continue;
            }
            let path = format!("{pod_spec}/{field}/{index}");
            // The name is tested as well, so that a list that changed meanwhile is not mixed up.
            let operation = |op: &str, field: &str, value: &Value| json!({"op": op, "path": format!("{path}/{field}"), "value": value});
            if found["image"] == image {
                out.push(None);
            } else {
                out.push(Some(operation("test", "name", &found["name"])));
                out.push(Some(operation("replace", "image", &Value::from(image))));
            }
        }
    }
    out
}
