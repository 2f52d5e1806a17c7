//! `flotilla attach`: joins the input and output of a container's own process.

use anyhow::bail;
use serde_json::Value;

use crate::GlobalOptions;
use crate::client::Cluster;
use crate::remote::{Target, Wanted};
use crate::{exec, output, pods};

/// Flags of `attach`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// POD, or TYPE/NAME of something that has pods
    #[arg(value_name = "POD | TYPE/NAME")]
    subject: String,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input on to the process
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Standard input is a terminal, and so is the process's
    #[arg(short, long)]
    tty: bool,
    /// Print nothing but what the process prints
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    let pod = pods::one(&cluster, &arguments.subject).await?;
    let phase = &pod["status"]["phase"];
    if phase == "Succeeded" || phase == "Failed" {
        bail!(
            "cannot attach a container in a completed pod; current phase is {}",
            phase.as_str().unwrap_or_default()
        );
    }
    let container = exec::container(&pod, arguments.container.as_deref(), arguments.quiet)?;
    let has_terminal = has_terminal(&pod, &container);
    if arguments.tty && !has_terminal {
        bail!("Unable to use a TTY - container {container} did not allocate one");
    }
    let tty = exec::use_terminal(arguments.tty, arguments.stdin);
    if tty && !arguments.quiet {
        output::error_line("If you don't see a command prompt, try pressing enter.");
    }
    let target = Target {
        pod: pod["metadata"]["name"].as_str().unwrap_or_default(),
        container: &container,
        wanted: Wanted {
            stdin: arguments.stdin,
            stderr: !has_terminal,
            tty,
        },
    };
    exec::interact(&cluster, &target, None).await
}

fn has_terminal(pod: &Value, container: &str) -> bool {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let mut all = lists
        .iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    all.any(|found| found["name"] == container && found["tty"] == true)
}
