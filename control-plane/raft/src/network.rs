//! Calls to other servers: one channel per address, and openraft's network on top.

mod transport;

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use flotilla_proto::peer::peer_client::PeerClient;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use crate::consensus::Raft;
use crate::leadership::Leadership;
use crate::members::Member;
use crate::options::PeerConnector;

pub(crate) use transport::install_header;

/// Entries may be megabytes; openraft's messages hold several.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The channels to other servers, shared by everything that calls them.
#[derive(Clone)]
pub(crate) struct Peers {
    connector: PeerConnector,
    channels: Arc<Mutex<HashMap<String, PeerClient<Channel>>>>,
    pub(crate) tracker: TaskTracker,
}

impl Peers {
    pub(crate) fn new(connector: PeerConnector, tracker: TaskTracker) -> Peers {
        Peers {
            connector,
            channels: Arc::default(),
            tracker,
        }
    }

    /// A client for the server at an address; connects when it is used.
    pub(crate) fn client(&self, address: &str) -> PeerClient<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = channels.get(address) {
            return client.clone();
        }
        let client = PeerClient::new((self.connector)(address))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        channels.insert(address.to_owned(), client.clone());
        client
    }
}

/// What is needed to turn to the leader, wherever it is.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// This replica.
    pub(crate) id: u64,
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

impl Cluster {
    /// The leader, when it is another replica.
    pub(crate) fn other_leader(&self) -> Option<Member> {
        let leader = self.leadership.borrow().leader.clone();
        leader.filter(|leader| leader.id != self.id)
    }
}

/// Whether a call surely did not reach the other server: no connection could be made.
pub(crate) fn never_sent(status: &tonic::Status) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::AddrNotAvailable
            );
        }
        source = error.source();
    }
    false
}
