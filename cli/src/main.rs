//! The `flotilla` binary: a control-plane replica, a node, a whole cluster on this machine, and a client.
//!
//! One file per verb. This file reads flags and picks the verb; the work is done by library crates
//! or, for the client, by the modules below.

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        reason = "an expectation is made for one check"
    )
)]

mod agent;
mod api_resources;
mod apply;
mod attach;
mod client;
mod cluster_info;
mod cp;
mod create;
mod daemon;
mod delete;
mod demo;
mod describe;
mod discovery;
mod exec;
mod get;
mod image;
mod label;
mod local;
mod logs;
mod manifest;
mod member;
mod merge;
mod output;
mod patch;
mod pods;
mod port_forward;
mod remote;
mod rollout;
mod scale;
mod selection;
mod server;
mod set;
mod snapshot;
mod top;
mod version;
mod wait;
mod watch;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

/// A small Kubernetes in one binary.
#[derive(Debug, Parser)]
#[command(name = "flotilla", version, about, disable_help_subcommand = true)]
struct CommandLine {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags that every verb of the client takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalOptions {
    /// The kubeconfig to use [default: $KUBECONFIG, ~/.kube/config, the local cluster's]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The namespace that the command is about
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// Tell more about what is done; -vv shows requests
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create or change objects so that they are as files say
    Apply(apply::Arguments),
    /// Show objects
    Get(get::Arguments),
    /// Show objects in detail, with their events
    Describe(describe::Arguments),
    /// Create objects from files or flags
    Create(create::Arguments),
    /// Delete objects
    Delete(delete::Arguments),
    /// Print what a pod's containers wrote
    Logs(logs::Arguments),
    /// Run a command in a container
    Exec(exec::Arguments),
    /// Join the input and output of a container's own process
    Attach(attach::Arguments),
    /// Forward local ports to a pod
    PortForward(port_forward::Arguments),
    /// Copy files to and from containers
    Cp(cp::Arguments),
    /// Set the number of replicas
    Scale(scale::Arguments),
    /// Follow or change the rollout of a Deployment
    Rollout(rollout::Arguments),
    /// Change fields of objects
    Patch(patch::Arguments),
    /// Set or remove labels
    Label(label::Arguments),
    /// Set or remove annotations
    Annotate(label::Arguments),
    /// Show what pods and nodes use
    Top(top::Arguments),
    /// Change a single feature of objects
    Set(set::Arguments),
    /// Wait until objects meet a condition
    Wait(wait::Arguments),
    /// List the kinds that the server has
    ApiResources(api_resources::Arguments),
    /// Print the versions of client and server
    Version(version::Arguments),
    /// Print where the cluster is
    ClusterInfo,
    /// Show the cluster's servers, or take one out
    Member(member::Arguments),
    /// Save a whole cluster to a file, or make one of such a file
    Snapshot(snapshot::Arguments),
    /// Run a whole cluster on this machine
    Local(local::LocalArgs),
    /// Import, list and remove images of this machine's node
    Image(image::ImageArgs),
    /// Run a control-plane replica; the machine is a node as well
    Server(server::ServerArgs),
    /// Run a node
    Agent(agent::AgentArgs),
}

fn main() -> ExitCode {
    // Two verbs are programs of their own that must start in a millisecond and have one thread.
    let mut words = std::env::args_os().skip(1);
    match words.next().as_deref().and_then(OsStr::to_str) {
        Some("shim") => flotilla_runtime::shim_main(words),
        Some("demo") => demo::run(
            &words
                .map(|word| word.to_string_lossy().into_owned())
                .collect::<Vec<_>>(),
        ),
        _ => match run(CommandLine::parse()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                output::error::print(&error);
                // A remote command's exit code is this one's.
                let exited = error.downcast_ref::<remote::Exited>();
                exited.map_or(ExitCode::FAILURE, |exited| ExitCode::from(exited.0))
            }
        },
    }
}

/// Runs a verb in the way that it needs: daemons have a runtime and a log of their own, clients are small.
fn run(CommandLine { global, verb }: CommandLine) -> anyhow::Result<()> {
    match verb {
        Verb::Local(arguments) => local::run(arguments),
        Verb::Image(arguments) => image::run(arguments),
        Verb::Server(arguments) => server::run(arguments),
        Verb::Agent(arguments) => agent::run(arguments),
        client => {
            start_logging(global.verbose);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .context("cannot start")?
                .block_on(run_client(&global, client))
        }
    }
}

async fn run_client(global: &GlobalOptions, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Apply(arguments) => apply::run(arguments, global).await,
        Verb::Get(arguments) => get::run(arguments, global).await,
        Verb::Describe(arguments) => describe::run(arguments, global).await,
        Verb::Create(arguments) => create::run(arguments, global).await,
        Verb::Delete(arguments) => delete::run(arguments, global).await,
        Verb::Logs(arguments) => logs::run(arguments, global).await,
        Verb::Exec(arguments) => exec::run(arguments, global).await,
        Verb::Attach(arguments) => attach::run(arguments, global).await,
        Verb::PortForward(arguments) => port_forward::run(arguments, global).await,
        Verb::Cp(arguments) => cp::run(arguments, global).await,
        Verb::Scale(arguments) => scale::run(arguments, global).await,
        Verb::Rollout(arguments) => rollout::run(arguments, global).await,
        Verb::Patch(arguments) => patch::run(arguments, global).await,
        Verb::Label(arguments) => label::run(arguments, label::Kind::Label, global).await,
        Verb::Annotate(arguments) => label::run(arguments, label::Kind::Annotation, global).await,
        Verb::Top(arguments) => top::run(arguments, global).await,
        Verb::Set(arguments) => set::run(arguments, global).await,
        Verb::Wait(arguments) => wait::run(arguments, global).await,
        Verb::ApiResources(arguments) => api_resources::run(arguments, global).await,
        Verb::Version(arguments) => version::run(arguments, global).await,
        Verb::Member(arguments) => member::run(arguments, global).await,
        Verb::Snapshot(arguments) => snapshot::run(arguments, global).await,
        Verb::ClusterInfo => cluster_info::run(global).await,
        Verb::Local(_) | Verb::Image(_) | Verb::Server(_) | Verb::Agent(_) => {
            unreachable!("these are no client's verbs")
        }
    }
}

/// The client's log is for its own troubles, so it is silent unless asked for.
fn start_logging(verbose: u8) {
    let filter = match verbose {
        // Errors are told by their verb, in words.
        0 => "off",
        1 => "flotilla=info,warn",
        _ => "flotilla=debug,kube=debug,info",
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_of_all_verbs_fit_together() {
        CommandLine::command().debug_assert();
    }
}
