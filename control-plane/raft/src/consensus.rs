//! The types that openraft is instantiated with, and their encoding.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flotilla_store::Outcome;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::runtime::Runtime;
use crate::storage::SnapshotFile;

openraft::declare_raft_types!(
    /// openraft with our types.
    pub(crate) TypeConfig:
        D = Proposals,
        R = Outcomes,
        NodeId = u64,
        Node = PeerNode,
        SnapshotData = SnapshotFile,
        AsyncRuntime = Runtime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Membership = openraft::Membership<u64, PeerNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, PeerNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, PeerNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type ServerMetrics = openraft::metrics::RaftServerMetrics<u64, PeerNode>;

/// What one log entry carries: many transactions, each encoded by its proposer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Proposals {
    pub(crate) transactions: Vec<Bytes>,
    /// Set once the entry is handed to the log; until then it surely has not happened.
    #[serde(skip)]
    pub(crate) appended: Appended,
}

impl Proposals {
    pub(crate) fn bytes(&self) -> usize {
        self.transactions.iter().map(Bytes::len).sum()
    }
}

/// Whether an entry has reached the log of the replica that proposed it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Appended(Arc<AtomicBool>);

impl Appended {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The answers to one entry's transactions, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcomes(pub(crate) Vec<Outcome>);

/// A member as the membership entries of the log describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerNode {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// Encodes a message or an entry.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    Bytes::from(postcard::to_stdvec(value).expect("only io or length-less sequences fail, there are none"))
}

/// Decodes what [`encode`] made.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    postcard::from_bytes(bytes)
}
