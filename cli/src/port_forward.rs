//! `flotilla port-forward`: local ports that lead to ports of a pod.

mod connection;
mod ports;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::GlobalOptions;
use crate::client::{Cluster, escape};
use crate::discovery::Discovery;
use crate::selection::select;
use crate::{output, pods};
use connection::Pod;
use ports::Pair;

/// Flags of `port-forward`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// POD, or TYPE/NAME of something that has pods
    #[arg(value_name = "POD | TYPE/NAME")]
    subject: String,
    /// LOCAL:REMOTE, PORT for both, or :REMOTE for any local port; remote ports may be named
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<String>,
    /// Local addresses to listen on; `localhost` is 127.0.0.1 and ::1
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "localhost"
    )]
    address: Vec<String>,
}

/// Runs the verb; it ends only with an interrupt or an error.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    let service = service(&cluster, &arguments.subject).await?;
    let pod = pods::one(&cluster, &arguments.subject).await?;
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if phase != "Running" {
        bail!("unable to forward port because pod is not running. Current status={phase}");
    }
    let pairs: Vec<Pair> = arguments
        .ports
        .iter()
        .map(|word| ports::parse(word, &pod, service.as_ref()))
        .collect::<anyhow::Result<_>>()?;
    let mut listeners = Vec::new();
    for pair in &pairs {
        listeners.extend(listen(&arguments.address, *pair).await?);
    }
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/portforward",
        escape(&cluster.namespace),
        escape(pod["metadata"]["name"].as_str().unwrap_or_default())
    );
    serve(Arc::new(Pod { cluster, path }), listeners).await
}

/// The service that is meant, if it is one: its ports lead to others of its pods.
async fn service(cluster: &Cluster, subject: &str) -> anyhow::Result<Option<Value>> {
    if !subject.contains('/') {
        return Ok(None);
    }
    let selection = select(&Discovery::load(cluster).await?, &[subject.to_owned()])?;
    match selection.targets.as_slice() {
        [target] if target.resource.kind == "Service" => {
            let name = target.names.first().map(String::as_str).unwrap_or_default();
            let path = target.resource.object(&cluster.namespace, name);
            Ok(Some(cluster.get(&path).await?))
        }
        _ => Ok(None),
    }
}

/// Listens on a pair's local port; with `localhost`, one of the two addresses is enough.
async fn listen(addresses: &[String], pair: Pair) -> anyhow::Result<Vec<(TcpListener, Pair)>> {
    let mut listeners = Vec::new();
    let mut local = pair.local;
    for address in addresses {
        let mut failure = None;
        let before = listeners.len();
        for ip in resolve(address)? {
            match TcpListener::bind(SocketAddr::new(ip, local)).await {
                Ok(listener) => {
                    let bound = listener.local_addr()?;
                    // Any port is the same on all addresses.
                    local = bound.port();
                    output::line(format!("Forwarding from {bound} -> {}", pair.remote));
                    listeners.push((listener, Pair { local, ..pair }));
                }
                Err(error) => failure = Some((ip, error)),
            }
        }
        if let Some((ip, error)) = failure.filter(|_| listeners.len() == before) {
            return Err(error).with_context(|| format!("unable to listen on {}", SocketAddr::new(ip, local)));
        }
    }
    Ok(listeners)
}

fn resolve(address: &str) -> anyhow::Result<Vec<IpAddr>> {
    if address == "localhost" {
        return Ok(vec![
            IpAddr::from([127, 0, 0, 1]),
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ]);
    }
    let address = address
        .parse()
        .with_context(|| format!("--address: {address} is neither an IP address nor localhost"))?;
    Ok(vec![address])
}

/// Accepts connections until one of the listeners fails.
async fn serve(pod: Arc<Pod>, listeners: Vec<(TcpListener, Pair)>) -> anyhow::Result<()> {
    let connections = TaskTracker::new();
    let accept = listeners.into_iter().map(|(listener, pair)| {
        let (pod, connections) = (pod.clone(), connections.clone());
        Box::pin(async move {
            loop {
                let (connection, _) = listener.accept().await.context("cannot accept connections")?;
                output::line(format!("Handling connection for {}", pair.local));
                let pod = pod.clone();
                connections.spawn(async move {
                    if let Err(error) = pod.carry(connection, pair.remote).await {
                        output::error_line(format!(
                            "error: forwarding {} -> {}: {error:#}",
                            pair.local, pair.remote
                        ));
                    }
                });
            }
        })
    });
    let (ended, _, _): (anyhow::Result<()>, _, _) = futures::future::select_all(accept).await;
    ended
}
