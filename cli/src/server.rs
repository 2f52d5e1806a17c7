//! `flotilla server`: a control-plane replica, and by default a node in the same process.

use std::path::PathBuf;

use anyhow::Context as _;
use flotilla_api::quantity::Quantity;
use flotilla_server::{AddressPool, InFlightLimits, JoinOptions, Options, Server, ServiceCidr};
use tokio_util::sync::CancellationToken;

use crate::{agent::NodeArgs, daemon};

/// Runs a control-plane replica; the machine is a node of the cluster as well.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Port of the API and of gRPC.
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// A further address or name that clients dial; may be repeated.
    #[arg(long = "tls-san", value_name = "ADDRESS")]
    tls_san: Vec<String>,
    /// Joins the cluster of this server instead of starting one.
    #[arg(long, value_name = "HOST:PORT", requires = "join-token")]
    join: Option<String>,
    /// Pod addresses of the whole cluster.
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/16")]
    cluster_cidr: String,
    /// Addresses of the cluster's services; the same on every server. The first is the API's, the tenth resolves names.
    #[arg(long, value_name = "CIDR", default_value_t)]
    service_cidr: ServiceCidr,
    /// Addresses for services of type LoadBalancer, free ones of the nodes' network: ranges (10.0.0.200-10.0.0.220) or
    /// networks (10.0.0.240/28), separated by commas. Without them such services get the nodes' own addresses.
    #[arg(long, value_name = "ADDRESSES", default_value_t)]
    load_balancer_pool: AddressPool,
    /// How long pods stay bound to an unreachable node unless they say otherwise.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    toleration_seconds: i64,
    /// What the store's data may take of the disk. Over it only deletions and what makes nothing larger are accepted; the
    /// same on every server, and at most half of the disk: a snapshot is written beside the last one. 0: no limit.
    #[arg(long, value_name = "SIZE", default_value = "2Gi", value_parser = bytes)]
    store_quota: u64,
    /// Requests that read and are answered at once; more are refused with 429 until others are done.
    #[arg(long, value_name = "COUNT", default_value_t = InFlightLimits::default().reading)]
    max_requests_inflight: usize,
    /// Requests that change something and are answered at once, likewise.
    #[arg(long, value_name = "COUNT", default_value_t = InFlightLimits::default().mutating)]
    max_mutating_requests_inflight: usize,
    /// After the loss of all other servers: the cluster goes on from this server's data, with it as the only member. What the
    /// others had and this one had not is gone; they may come back only with empty folders and a token. Start the server
    /// without this flag afterwards.
    #[arg(long, conflicts_with = "join")]
    reset_to_this_member: bool,
    /// Runs no pods on this machine.
    #[arg(long)]
    disable_agent: bool,
    /// Acknowledges what a power cut would take, so that it can be seen that tests find that.
    #[cfg(feature = "planted-bugs")]
    #[arg(long, hide = true)]
    skip_data_sync: bool,
}

pub(crate) fn run(args: ServerArgs) -> anyhow::Result<()> {
    daemon::run(move |shutdown| serve(args, shutdown))
}

async fn serve(args: ServerArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    #[cfg(feature = "planted-bugs")]
    if args.skip_data_sync {
        flotilla_server::planted::plant(Some(flotilla_server::planted::PlantedBug::SkipDataSync));
    }
    let options = server_options(&args)?;
    // Beside the server's own files: `flotilla image` looks there.
    let agent_dir = options.data_dir.join("agent");
    let server = Server::new(options, shutdown.clone()).await?;
    if args.disable_agent {
        return Ok(server.run().await?);
    }
    let own_address = std::net::SocketAddr::new(args.node.address()?, args.port).to_string();
    let mut agent = args.node.agent_options(vec![own_address], None)?;
    agent.data_dir = agent_dir;
    agent
        .labels
        .insert("node-role.kubernetes.io/control-plane".into(), String::new());
    // The agent finds its certificate there and needs no token.
    server.node_identity()?.save(&agent.data_dir.join("pki"))?;
    let agent = flotilla_agent::Agent::new(agent)?;
    // One without the other is of no use: whichever ends first takes the other with it.
    let (server, agent) = tokio::join!(
        daemon::ending(server.run(), &shutdown),
        daemon::ending(agent.run(shutdown.clone()), &shutdown),
    );
    server?;
    agent?;
    Ok(())
}

/// Reads a size as Kubernetes writes them, like `2Gi`.
fn bytes(text: &str) -> Result<u64, String> {
    let quantity = Quantity::parse(text).map_err(|error| error.to_string())?;
    u64::try_from(quantity.value()).map_err(|_| "a size is not negative".to_owned())
}

fn server_options(args: &ServerArgs) -> anyhow::Result<Options> {
    let join = args.join.clone().map(|server| {
        let token = args
            .node
            .token()?
            .context("--join needs --token or --token-file")?;
        anyhow::Ok(JoinOptions { server, token })
    });
    Ok(Options {
        name: args.node.name()?,
        data_dir: args
            .node
            .data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from("/var/lib/flotilla/server")),
        address: args.node.address()?,
        port: args.port,
        tls_san: args.tls_san.clone(),
        join: join.transpose()?,
        reset_to_this_member: args.reset_to_this_member,
        cluster_cidr: args.cluster_cidr.clone(),
        service_cidr: args.service_cidr,
        load_balancer_pool: args.load_balancer_pool.clone(),
        toleration_seconds: args.toleration_seconds,
        store_quota_bytes: args.store_quota,
        in_flight: InFlightLimits {
            reading: args.max_requests_inflight,
            mutating: args.max_mutating_requests_inflight,
            ..InFlightLimits::default()
        },
    })
}
