//! Which server to follow, and one shared connection to it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tonic::transport::Channel;

use crate::identity::Connector;

/// The known servers in the order in which this node prefers them.
pub(crate) struct Servers {
    node_name: String,
    node_address: IpAddr,
    known: watch::Receiver<BTreeSet<String>>,
    connectors: watch::Receiver<Connector>,
    /// One per server, shared by all streams; made anew when the node's certificate is.
    channels: Mutex<BTreeMap<String, (Connector, Channel)>>,
}

impl Servers {
    pub(crate) fn new(
        node_name: &str,
        node_address: IpAddr,
        known: watch::Receiver<BTreeSet<String>>,
        connectors: watch::Receiver<Connector>,
    ) -> Self {
        Self {
            node_name: node_name.to_owned(),
            node_address,
            known,
            connectors,
            channels: Mutex::default(),
        }
    }

    /// All servers, in the order in which this node asks them.
    pub(crate) fn in_order(&self) -> Vec<String> {
        preference(&self.node_name, self.node_address, &self.known.borrow())
    }

    /// The server to ask after so many failures in a row.
    pub(super) fn choose(&self, failures: usize) -> Option<String> {
        let order = self.in_order();
        let at = failures % order.len().max(1);
        order.into_iter().nth(at)
    }

    /// Waits until other servers are known.
    pub(super) async fn changed(&self) {
        let mut known = self.known.clone();
        known.mark_unchanged();
        if known.changed().await.is_err() {
            // The agent is shutting down.
            std::future::pending::<()>().await;
        }
    }

    /// The connection to a server; it is opened when it is used.
    pub(crate) fn channel(&self, address: &str) -> Channel {
        let connector = self.connectors.borrow().clone();
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.borrow();
        channels.retain(|kept, (of, _)| known.contains(kept) && Arc::ptr_eq(of, &connector));
        let (_, channel) = channels.entry(address.to_owned()).or_insert_with(|| {
            let channel = connector(address);
            (connector, channel)
        });
        channel.clone()
    }
}

/// This machine's own server first; the others in an order that differs from node to node, which spreads the load.
fn preference(node_name: &str, node_address: IpAddr, known: &BTreeSet<String>) -> Vec<String> {
    let weight = |address: &String| {
        let own = address
            .parse::<SocketAddr>()
            .is_ok_and(|address| address.ip() == node_address);
        let mut hasher = DefaultHasher::new();
        (node_name, address).hash(&mut hasher);
        (!own, hasher.finish())
    };
    let mut order: Vec<String> = known.iter().cloned().collect();
    order.sort_by_key(weight);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_prefer_their_own_server_and_otherwise_different_ones() {
        let known: BTreeSet<String> = (1..=3).map(|host| format!("10.0.0.{host}:6443")).collect();
        let first = |node: &str, address: &str| preference(node, address.parse().unwrap(), &known)[0].clone();
        for host in 1..=3 {
            let address = format!("10.0.0.{host}");
            assert_eq!(first("any", &address), format!("{address}:6443"));
        }
        let chosen: BTreeSet<String> = (0..30)
            .map(|node| first(&format!("node-{node}"), "10.0.0.9"))
            .collect();
        assert_eq!(chosen.len(), 3);
    }
}
