//! `flotilla local`: a whole cluster on this machine.

mod readiness;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use flotilla_local::{Extent, NodeStatus, Place, Role, RunState, Status, UpOptions};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How long the first server may take to answer, and then all nodes to be ready.
const LIMIT: Duration = Duration::from_secs(60);
/// A server that does not answer a request within this time is asked again.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);

/// Runs a whole cluster on this machine: real processes, each in namespaces of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct LocalArgs {
    /// The cluster's name; several run side by side.
    #[arg(long, global = true, value_name = "NAME", default_value = "default")]
    name: String,
    /// Where clusters are kept [default: $FLOTILLA_LOCAL_DIR, /var/lib/flotilla/local].
    #[arg(long, global = true, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: LocalVerb,
}

#[derive(Debug, clap::Subcommand)]
enum LocalVerb {
    /// Start a cluster and wait until all its nodes are ready
    Up(UpArgs),
    /// Remove the cluster and everything that it has
    Down,
    /// Show the cluster's nodes
    Status {
        /// Output format
        #[arg(short, long, value_parser = ["json"])]
        output: Option<String>,
    },
    /// Print the path of the cluster's kubeconfig
    Kubeconfig,
    /// Kill a node, as by a power cut
    Kill {
        /// The node
        node: String,
        /// Kill only the node's own process; its containers go on
        #[arg(long, visible_alias = "agent-only")]
        process_only: bool,
    },
    /// Start a node that was killed
    Start {
        /// The node
        node: String,
    },
    /// Stop all processes of a node where they are
    Pause {
        /// The node
        node: String,
    },
    /// Let the processes of a paused node go on
    Resume {
        /// The node
        node: String,
    },
    /// Keep groups of nodes from hearing each other: server-1|server-2,server-3
    Partition {
        /// Groups, separated by |, of nodes, separated by commas; with > instead, each is still heard by those before it
        groups: String,
    },
    /// Let all nodes hear each other again
    Heal,
    /// Run a command in the namespaces of a node
    Exec {
        /// The node
        node: String,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// The cluster's supervisor process
    #[command(hide = true)]
    Supervise,
    /// The first moment of a node's process
    #[command(hide = true)]
    Enter {
        /// Folder with the node's namespaces
        pins: PathBuf,
        /// The node's cgroup
        cgroup: String,
        /// What to become
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
struct UpArgs {
    /// Control-plane replicas; each is a node as well
    #[arg(long, value_name = "N", default_value_t = 1)]
    servers: usize,
    /// Nodes without a control plane
    #[arg(long, value_name = "N", default_value_t = 0)]
    agents: usize,
    /// How long pods stay bound to an unreachable node unless they say otherwise
    #[arg(long, value_name = "SECONDS")]
    toleration_seconds: Option<u64>,
    /// Addresses for services of type LoadBalancer, out of 10.89.0.100-10.89.0.254; the nodes' own by default
    #[arg(long, value_name = "ADDRESSES")]
    load_balancer_pool: Option<String>,
}

/// Runs the verb. *Assumes* that this process has one thread, or `exec` cannot enter a node.
pub(crate) fn run(args: LocalArgs) -> anyhow::Result<()> {
    let dir = args
        .dir
        .or_else(|| std::env::var_os("FLOTILLA_LOCAL_DIR").map(PathBuf::from));
    let place = Place::new(&args.name, dir.as_deref())?;
    match args.verb {
        LocalVerb::Up(args) => up(&place, &args)?,
        LocalVerb::Down => {
            if !flotilla_local::down(&place)? {
                say(&format!("there is no cluster {:?}", place.name()))?;
            }
        }
        LocalVerb::Status { output } => print_status(&place, output.is_some())?,
        LocalVerb::Kubeconfig => {
            flotilla_local::status(&place)?;
            say(&place.kubeconfig().display().to_string())?;
        }
        LocalVerb::Kill { node, process_only } => {
            let extent = if process_only {
                Extent::Process
            } else {
                Extent::Machine
            };
            flotilla_local::kill(&place, &node, extent)?;
        }
        LocalVerb::Start { node } => flotilla_local::start(&place, &node)?,
        LocalVerb::Pause { node } => flotilla_local::pause(&place, &node)?,
        LocalVerb::Resume { node } => flotilla_local::resume(&place, &node)?,
        LocalVerb::Partition { groups } => flotilla_local::partition(&place, &groups)?,
        LocalVerb::Heal => flotilla_local::heal(&place)?,
        LocalVerb::Exec { node, command } => match flotilla_local::exec(&place, &node, &command)? {},
        LocalVerb::Supervise => flotilla_local::supervise(&place)?,
        LocalVerb::Enter {
            pins,
            cgroup,
            command,
        } => match flotilla_local::enter(&pins, &cgroup, &command)? {},
    }
    Ok(())
}

fn up(place: &Place, args: &UpArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let options = UpOptions {
        servers: args.servers,
        agents: args.agents,
        executable: std::env::current_exe().context("cannot find this program's own file")?,
        toleration_seconds: args.toleration_seconds,
        load_balancer_pool: args.load_balancer_pool.clone(),
        limit: LIMIT,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    flotilla_local::up(place, &options, |ready| {
        runtime.block_on(readiness::wait(ready, LIMIT))
    })?;
    let nodes = args.servers + args.agents;
    say(&format!(
        "{nodes} nodes are ready after {:.1} s",
        started.elapsed().as_secs_f32()
    ))?;
    say(&format!("export KUBECONFIG={}", place.kubeconfig().display()))?;
    Ok(())
}

async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn print_status(place: &Place, json: bool) -> anyhow::Result<()> {
    let status = flotilla_local::status(place)?;
    let serves = |node: &NodeStatus| node.role == Role::Server && node.state == RunState::Running;
    let leader = status.nodes.iter().any(serves).then(|| leader(place)).flatten();
    if json {
        let mut value = serde_json::to_value(&status)?;
        value["leader"] = leader.into();
        return say(&serde_json::to_string_pretty(&value)?);
    }
    say(table(&status, leader.as_deref()).trim_end())
}

/// The node whose server leads, if the servers can tell.
fn leader(place: &Place) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async {
        let leases: Api<Lease> = Api::namespaced(client(&place.kubeconfig()).await.ok()?, "kube-system");
        let lease = tokio::time::timeout(REQUEST_LIMIT, leases.get("flotilla-leader"))
            .await
            .ok()?
            .ok()?;
        lease.spec?.holder_identity
    })
}

fn table(status: &Status, leader: Option<&str>) -> String {
    let header = ["NODE", "ROLE", "ADDRESS", "PID", "STATE"].map(str::to_owned);
    let rows = status.nodes.iter().map(|node| {
        let role = format!("{:?}", node.role).to_lowercase();
        let pid = node.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let state = match node.state {
            RunState::Running => "running",
            RunState::Dead => "dead",
            RunState::Paused => "paused",
        };
        [
            node.name.clone(),
            role,
            node.address.to_string(),
            pid,
            state.to_owned(),
        ]
    });
    let rows: Vec<[String; 5]> = std::iter::once(header).chain(rows).collect();
    let widths: Vec<usize> = (0..5)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text += cells.join("   ").trim_end();
        text.push('\n');
    }
    if !status.partition.is_empty() {
        let groups: Vec<String> = status.partition.iter().map(|group| group.join(",")).collect();
        text += &format!(
            "\npartition: {}\n",
            groups.join(if status.one_way { " > " } else { " | " })
        );
    }
    if let Some(leader) = leader {
        text += &format!("\nleader: {leader}\n");
    }
    text += &format!(
        "\nserver: {}\nkubeconfig: {}\n",
        status.server,
        status.kubeconfig.display()
    );
    text
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}").context("cannot write to standard output")
}
