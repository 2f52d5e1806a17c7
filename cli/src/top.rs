//! `flotilla top`: what pods and nodes use, as kubectl shows it.

use std::cmp::Reverse;

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use flotilla_api::quantity::Quantity;
use serde_json::Value;

use crate::GlobalOptions;
use crate::client::{Cluster, RequestError, escape, with_query};
use crate::output;
use crate::output::tabwriter::{TABLE, align};

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// Flags of `top`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What pods use
    #[command(visible_aliases = ["pod", "po"])]
    Pods(PodArguments),
    /// What nodes use
    #[command(visible_aliases = ["node", "no"])]
    Nodes(NodeArguments),
}

#[derive(Debug, clap::Args)]
struct Choice {
    /// Only this one
    name: Option<String>,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Largest first
    #[arg(long, value_enum)]
    sort_by: Option<SortBy>,
    /// Print no headings
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SortBy {
    Cpu,
    Memory,
}

#[derive(Debug, clap::Args)]
struct PodArguments {
    #[command(flatten)]
    choice: Choice,
    /// Only objects with these fields
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Each container by itself
    #[arg(long)]
    containers: bool,
    /// Print the sum as well
    #[arg(long)]
    sum: bool,
}

#[derive(Debug, clap::Args)]
struct NodeArguments {
    #[command(flatten)]
    choice: Choice,
}

/// Thousandths of a core, and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Use {
    cpu: i64,
    memory: i64,
}

impl Use {
    fn of(usage: &Value) -> Use {
        let read = |field: &str| {
            let text = usage[field].as_str()?;
            Quantity::parse(text).ok()
        };
        Use {
            cpu: read("cpu").map_or(0, Quantity::milli),
            memory: read("memory").map_or(0, Quantity::value),
        }
    }

    fn plus(self, other: Use) -> Use {
        Use {
            cpu: self.cpu + other.cpu,
            memory: self.memory + other.memory,
        }
    }

    fn cpu_cell(self) -> String {
        format!("{}m", self.cpu)
    }

    fn memory_cell(self) -> String {
        format!("{}Mi", self.memory >> 20)
    }
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    match arguments.what {
        What::Pods(arguments) => pods(&cluster, &arguments).await,
        What::Nodes(arguments) => nodes(&cluster, &arguments).await,
    }
}

async fn pods(cluster: &Cluster, arguments: &PodArguments) -> anyhow::Result<()> {
    if arguments.choice.name.is_some() && arguments.all_namespaces {
        bail!("a pod's name cannot be given together with --all-namespaces");
    }
    let collection = match arguments.all_namespaces {
        true => format!("{METRICS}/pods"),
        false => format!("{METRICS}/namespaces/{}/pods", escape(&cluster.namespace)),
    };
    let choice = &arguments.choice;
    let found = find(cluster, &collection, choice, arguments.field_selector.as_deref()).await?;
    if found.is_empty() {
        return no_pods(cluster, arguments).await;
    }
    output::text(&align(TABLE, &pod_table(&found, arguments)));
    Ok(())
}

/// Pods that are there but were not measured yet are another thing than no pods.
async fn no_pods(cluster: &Cluster, arguments: &PodArguments) -> anyhow::Result<()> {
    let collection = match arguments.all_namespaces {
        true => "/api/v1/pods".to_owned(),
        false => format!("/api/v1/namespaces/{}/pods", escape(&cluster.namespace)),
    };
    let query = [
        ("labelSelector", arguments.choice.selector.as_deref()),
        ("fieldSelector", arguments.field_selector.as_deref()),
    ];
    let pods = cluster.get(&with_query(&collection, &query)).await?;
    let mut running = pods["items"].as_array().into_iter().flatten();
    if running.any(|pod| pod["status"]["phase"] == "Running") {
        bail!("metrics not available yet: nodes report every 10 seconds, and a rate needs two reports");
    }
    output::error_line(match arguments.all_namespaces {
        true => "No resources found".to_owned(),
        false => format!("No resources found in {} namespace.", cluster.namespace),
    });
    Ok(())
}

async fn find(
    cluster: &Cluster,
    collection: &str,
    choice: &Choice,
    fields: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    let answered = match &choice.name {
        Some(name) => cluster.get(&format!("{collection}/{}", escape(name))).await,
        None => {
            let query = [
                ("labelSelector", choice.selector.as_deref()),
                ("fieldSelector", fields),
            ];
            cluster.get(&with_query(collection, &query)).await
        }
    };
    let mut answered = answered.map_err(|error| match (&choice.name, error.is_not_found()) {
        (None, true) => anyhow::Error::from(error).context("Metrics API not available"),
        _ => error.into(),
    })?;
    Ok(match answered["items"].take() {
        Value::Array(items) => items,
        _ => vec![answered],
    })
}

fn order<T>(rows: &mut [T], sort_by: Option<SortBy>, used: impl Fn(&T) -> Use) {
    match sort_by {
        None => {}
        Some(SortBy::Cpu) => rows.sort_by_key(|row| Reverse(used(row).cpu)),
        Some(SortBy::Memory) => rows.sort_by_key(|row| Reverse(used(row).memory)),
    }
}

fn name_of(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}

fn containers(pod: &Value) -> Vec<(String, Use)> {
    let all = pod["containers"].as_array().into_iter().flatten();
    all.map(|one| {
        (
            one["name"].as_str().unwrap_or_default().to_owned(),
            Use::of(&one["usage"]),
        )
    })
    .collect()
}

fn pod_table(pods: &[Value], arguments: &PodArguments) -> String {
    let mut rows: Vec<(Vec<String>, Use)> = Vec::new();
    for pod in pods {
        let mut names = Vec::new();
        if arguments.all_namespaces {
            names.push(name_of(pod, "namespace"));
        }
        names.push(name_of(pod, "name"));
        let parts = containers(pod);
        if arguments.containers {
            for (name, used) in parts {
                let mut names = names.clone();
                names.push(name);
                rows.push((names, used));
            }
        } else {
            let total = parts
                .into_iter()
                .map(|(_, used)| used)
                .fold(Use::default(), Use::plus);
            rows.push((names, total));
        }
    }
    order(&mut rows, arguments.choice.sort_by, |(_, used)| *used);
    let mut table = String::new();
    if !arguments.choice.no_headers {
        let namespace = if arguments.all_namespaces {
            "NAMESPACE\t"
        } else {
            ""
        };
        let names = if arguments.containers { "POD\tNAME" } else { "NAME" };
        table += &format!("{namespace}{names}\tCPU(cores)\tMEMORY(bytes)\t\n");
    }
    let columns = rows.first().map_or(1, |(names, _)| names.len());
    let total = rows.iter().map(|(_, used)| *used).fold(Use::default(), Use::plus);
    for (names, used) in rows {
        table += &format!(
            "{}\t{}\t{}\t\n",
            names.join("\t"),
            used.cpu_cell(),
            used.memory_cell()
        );
    }
    if arguments.sum {
        let blank = "\t".repeat(columns);
        table += &format!("{blank}________\t________\t\n");
        table += &format!("{blank}{}\t{}\t\n", total.cpu_cell(), total.memory_cell());
    }
    table
}

async fn nodes(cluster: &Cluster, arguments: &NodeArguments) -> anyhow::Result<()> {
    let choice = &arguments.choice;
    let measured = match find(cluster, &format!("{METRICS}/nodes"), choice, None).await {
        // A node that is there but was not measured is shown as such.
        Err(error) if choice.name.is_some() && is_not_found(&error) => Vec::new(),
        other => other?,
    };
    let all = match &choice.name {
        Some(name) => vec![cluster.get(&format!("/api/v1/nodes/{}", escape(name))).await?],
        None => {
            let query = [("labelSelector", choice.selector.as_deref())];
            let list = cluster.get(&with_query("/api/v1/nodes", &query)).await?;
            list["items"].as_array().cloned().unwrap_or_default()
        }
    };
    if all.is_empty() {
        output::error_line("No resources found");
        return Ok(());
    }
    output::text(&align(TABLE, &node_table(&all, &measured, choice)?));
    Ok(())
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<RequestError>()
        .is_some_and(RequestError::is_not_found)
}

fn node_table(nodes: &[Value], measured: &[Value], choice: &Choice) -> anyhow::Result<String> {
    let mut rows = Vec::new();
    for node in nodes {
        let name = name_of(node, "name");
        let found = measured
            .iter()
            .find(|metrics| metrics["metadata"]["name"] == name.as_str());
        let has = Use::of(&node["status"]["allocatable"]);
        rows.push((name, found.map(|metrics| Use::of(&metrics["usage"])), has));
    }
    order(&mut rows, choice.sort_by, |(_, used, _)| used.unwrap_or_default());
    if choice.sort_by.is_none() {
        rows.sort_by(|one, other| one.0.cmp(&other.0));
    }
    let mut table = String::new();
    if !choice.no_headers {
        table += "NAME\tCPU(cores)\tCPU(%)\tMEMORY(bytes)\tMEMORY(%)\t\n";
    }
    for (name, used, has) in rows {
        let Some(used) = used else {
            table += &format!("{name}\t<unknown>\t<unknown>\t<unknown>\t<unknown>\t\n");
            continue;
        };
        table += &format!(
            "{name}\t{}\t{}\t{}\t{}\t\n",
            used.cpu_cell(),
            percent(used.cpu, has.cpu).context("the node tells no processors")?,
            used.memory_cell(),
            percent(used.memory, has.memory).context("the node tells no memory")?,
        );
    }
    Ok(table)
}

fn percent(used: i64, all: i64) -> Option<String> {
    let hundredfold = i128::from(used) * 100;
    (all > 0).then(|| format!("{}%", hundredfold / i128::from(all)))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, name: &str, containers: &[(&str, &str, &str)]) -> Value {
        let containers: Vec<Value> = containers
            .iter()
            .map(|(name, cpu, memory)| json!({"name": name, "usage": {"cpu": cpu, "memory": memory}}))
            .collect();
        json!({"metadata": {"name": name, "namespace": namespace}, "containers": containers})
    }

    fn arguments(words: &str) -> PodArguments {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: PodArguments,
        }
        let words = std::iter::once("top").chain(words.split_whitespace());
        <Line as clap::Parser>::parse_from(words).arguments
    }

    fn check(words: &str, expected: Expect) {
        let pods = vec![
            pod(
                "a",
                "web-1",
                &[("web", "1500000n", "2048Ki"), ("log", "250m", "10Mi")],
            ),
            pod("b", "db-0", &[("db", "100m", "3Gi")]),
        ];
        expected.assert_eq(&align(TABLE, &pod_table(&pods, &arguments(words))));
    }

    #[test]
    fn pods_are_shown_as_kubectl_shows_them() {
        check(
            "",
            expect![[r#"
            NAME    CPU(cores)   MEMORY(bytes)   
            web-1   252m         12Mi            
            db-0    100m         3072Mi          
        "#]],
        );
        check(
            "-A --sort-by memory --sum",
            expect![[r#"
            NAMESPACE   NAME    CPU(cores)   MEMORY(bytes)   
            b           db-0    100m         3072Mi          
            a           web-1   252m         12Mi            
                                ________     ________        
                                352m         3084Mi          
        "#]],
        );
        check(
            "--containers --sort-by cpu --no-headers",
            expect![[r#"
            web-1   log   250m   10Mi     
            db-0    db    100m   3072Mi   
            web-1   web   2m     2Mi      
        "#]],
        );
    }

    #[test]
    fn nodes_that_were_not_measured_are_unknown() {
        let node = |name: &str| json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi"}}});
        let measured = [json!({"metadata": {"name": "b"}, "usage": {"cpu": "500m", "memory": "1Gi"}})];
        let choice = Choice {
            name: None,
            selector: None,
            sort_by: None,
            no_headers: false,
        };
        let table = node_table(&[node("b"), node("a")], &measured, &choice).unwrap();
        expect![[r#"
            NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)   
            a      <unknown>    <unknown>   <unknown>       <unknown>   
            b      500m         25%         1024Mi          25%         
        "#]]
        .assert_eq(&align(TABLE, &table));
    }
}
