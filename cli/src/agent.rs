//! `flotilla agent`: a node.

mod ingress;
mod network;
mod reserve;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
};

use anyhow::{Context as _, bail};

use self::ingress::IngressArgs;
use self::network::NetworkArgs;
use self::reserve::ReserveArgs;
use crate::daemon;

/// What every machine that runs pods is told, be it a server or only an agent.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The node's name; the host name by default.
    #[arg(long)]
    name: Option<String>,
    /// The address that other machines dial; by default the one from which the network is reached.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Where everything that must survive a reboot is kept.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where sockets and namespaces are kept; empty after a reboot.
    #[arg(long, value_name = "FOLDER", default_value = "/run/flotilla")]
    run_dir: PathBuf,
    /// The cgroup under which pods run.
    #[arg(long, value_name = "PATH", default_value = "/flotilla")]
    cgroup_parent: String,
    /// The bridge that pods are connected to.
    #[arg(long, value_name = "NAME", default_value = "flt0")]
    bridge: String,
    /// The folder whose files (*.yaml, *.yml, *.json) each describe a static pod, which runs with or without a server;
    /// by default pod-manifests in the agent's data folder.
    #[arg(long, value_name = "FOLDER")]
    pod_manifest_path: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    ingress: IngressArgs,
    #[command(flatten)]
    reserve: ReserveArgs,
    /// A label of the node; may be repeated.
    #[arg(long = "node-label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// The join token of the cluster.
    #[arg(long, group = "join-token")]
    token: Option<String>,
    /// A file that holds the join token.
    #[arg(long, value_name = "FILE", group = "join-token")]
    token_file: Option<PathBuf>,
}

/// Runs pods for the cluster of the given servers.
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// A server of the cluster; may be repeated. One is enough: the agent learns of the others.
    #[arg(long = "server", value_name = "HOST:PORT", required = true)]
    servers: Vec<String>,
}

pub(crate) fn run(args: AgentArgs) -> anyhow::Result<()> {
    let token = args.node.token()?;
    let options = args.node.agent_options(args.servers, token)?;
    daemon::run(move |shutdown| async move {
        let agent = flotilla_agent::Agent::new(options)?;
        Ok(agent.run(shutdown).await?)
    })
}

/// What a machine is called unless it is told.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name =
        fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read the host name; give --name")?;
    Ok(name.trim().to_lowercase())
}

impl NodeArgs {
    pub(crate) fn name(&self) -> anyhow::Result<String> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => host_name(),
        }
    }

    pub(crate) fn address(&self) -> anyhow::Result<IpAddr> {
        match self.address {
            Some(address) => Ok(address),
            None => default_address().context("cannot tell this machine's address; give --address"),
        }
    }

    pub(crate) fn token(&self) -> anyhow::Result<Option<String>> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(file)) => {
                let token = fs::read_to_string(file)
                    .with_context(|| format!("cannot read the join token in {}", file.display()))?;
                Ok(Some(token.trim().to_owned()))
            }
            (None, None) => Ok(None),
        }
    }

    pub(crate) fn agent_options(
        &self,
        servers: Vec<String>,
        token: Option<String>,
    ) -> anyhow::Result<flotilla_agent::Options> {
        Ok(flotilla_agent::Options {
            name: self.name()?,
            servers,
            token,
            data_dir: self
                .data_dir
                .clone()
                .unwrap_or_else(|| PathBuf::from("/var/lib/flotilla/agent")),
            run_dir: self.run_dir.clone(),
            node_address: self.address()?,
            cgroup_parent: self.cgroup_parent.clone(),
            bridge: self.bridge.clone(),
            network: self.network.options(),
            ingress: self.ingress.options(),
            reserve: self.reserve.reserve(),
            permits: self.reserve.permits(),
            pressure_transition: self.reserve.transition()?,
            labels: self
                .labels
                .iter()
                .map(|label| parse_label(label))
                .collect::<anyhow::Result<BTreeMap<_, _>>>()?,
            static_pods: self.pod_manifest_path.clone(),
            executable: std::env::current_exe().context("cannot find this program's own file")?,
        })
    }
}

fn parse_label(label: &str) -> anyhow::Result<(String, String)> {
    match label.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("--node-label {label:?} is not of the form KEY=VALUE"),
    }
}

/// The address that packets to the outside would come from. Sends nothing: connecting a UDP socket only looks up the
/// route. The address is one of those reserved for documentation.
fn default_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address: SocketAddr| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_need_a_key() {
        assert_eq!(parse_label("a=b").unwrap(), ("a".to_owned(), "b".to_owned()));
        assert_eq!(parse_label("a=").unwrap(), ("a".to_owned(), String::new()));
        assert!(parse_label("=b").is_err());
        assert!(parse_label("ab").is_err());
    }
}
