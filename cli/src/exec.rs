//! `flotilla exec`: runs a command in a container.

use anyhow::bail;
use serde_json::Value;

use crate::GlobalOptions;
use crate::client::Cluster;
use crate::remote::{self, Ends, RawTerminal, Target, Wanted};
use crate::{output, pods};

/// Flags of `exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// POD, or TYPE/NAME of something that has pods
    #[arg(value_name = "POD | TYPE/NAME")]
    subject: String,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input on to the command
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Print nothing but what the command prints
    #[arg(short, long)]
    quiet: bool,
    /// The command, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    let pod = pods::one(&cluster, &arguments.subject).await?;
    let phase = &pod["status"]["phase"];
    if phase == "Succeeded" || phase == "Failed" {
        bail!(
            "cannot exec into a container in a completed pod; current phase is {}",
            phase.as_str().unwrap_or_default()
        );
    }
    let container = container(&pod, arguments.container.as_deref(), arguments.quiet)?;
    let target = Target {
        pod: pod["metadata"]["name"].as_str().unwrap_or_default(),
        container: &container,
        wanted: Wanted {
            stdin: arguments.stdin,
            stderr: true,
            tty: use_terminal(arguments.tty, arguments.stdin),
        },
    };
    interact(&cluster, &target, Some(&arguments.command)).await
}

/// The container that is meant, and a word about it when it was not named.
pub(crate) fn container(pod: &Value, wanted: Option<&str>, quiet: bool) -> anyhow::Result<String> {
    let choice = pods::container(pod, wanted)?;
    if let Some(notice) = choice.notice.filter(|_| !quiet) {
        output::error_line(notice);
    }
    Ok(choice.container)
}

/// Whether a terminal is to be used: it needs one at this end as well.
pub(crate) fn use_terminal(tty: bool, stdin: bool) -> bool {
    let can = !stdin || remote::is_terminal();
    if tty && !can {
        output::error_line("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    tty && can
}

/// Joins a process with this one's streams until it ends.
pub(crate) async fn interact(
    cluster: &Cluster,
    target: &Target<'_>,
    command: Option<&[String]>,
) -> anyhow::Result<()> {
    let is_interactive = target.wanted.tty && target.wanted.stdin;
    let sizes = match target.wanted.tty {
        true => Some(remote::window_sizes()?),
        false => None,
    };
    let (sizes, follow) = sizes.unzip();
    let _raw = is_interactive.then(RawTerminal::enter).transpose()?;
    let ends = Ends {
        stdin: lazily(target.wanted.stdin),
        stdout: remote::output(&std::io::stdout())?,
        stderr: remote::output(&std::io::stderr())?,
        sizes,
    };
    let follow = async {
        if let Some(follow) = follow {
            follow.await;
        }
        std::future::pending::<()>().await;
    };
    // The sizes are followed for as long as the process runs.
    tokio::select! {
        ended = remote::run(cluster, target, command, ends) => ended,
        () = follow => Ok(()),
    }
}

/// Standard input is touched only if it is wanted: a program in the background is stopped when it reads its terminal.
fn lazily(wanted: bool) -> Box<dyn tokio::io::AsyncRead + Unpin> {
    match wanted {
        true => Box::new(remote::standard_input()),
        false => Box::new(tokio::io::empty()),
    }
}
