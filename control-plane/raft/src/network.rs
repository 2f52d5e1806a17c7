//! Calls to other servers: what they are, whatever carries them, and openraft's network on top.

mod grpc;
mod link;

use std::sync::Arc;

use bytes::Bytes;
use flotilla_proto::peer::{
    AddMemberRequest, AddMemberResponse, ProposeRequest, ProposeResponse, ReadIndexResponse, SpaceReport,
    TakeOverRequest,
};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::consensus::Raft;
use crate::leadership::Leadership;
use crate::members::Member;
use crate::platform::DiskFile;

pub use self::grpc::{GrpcPeerService, PeerConnector};
pub(crate) use self::grpc::{GrpcTransport, grpc_service};
pub(crate) use self::link::install_header;

/// Why a call to another server has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It surely was not delivered and will not be.
    #[error("it was not delivered: {0}")]
    NotDelivered(String),
    /// The other server has refused it, and nothing has happened.
    #[error("{0}")]
    Refused(String),
    /// Anything else: it may have been carried out, or may be yet.
    #[error("{0}")]
    Unknown(String),
}

/// The answer to a call.
pub type Call<T> = BoxFuture<'static, Result<T, CallError>>;

/// Carries calls to other servers, each known by its address. A call whose future is dropped may be carried out.
///
/// An openraft message is bytes in the encoding of this crate.
pub trait Transport: Send + Sync {
    /// Openraft's append.
    fn append_entries(&self, address: &str, message: Bytes) -> Call<Bytes>;

    /// Openraft's request of a vote.
    fn vote(&self, address: &str, message: Bytes) -> Call<Bytes>;

    /// A whole snapshot: the header says whose and which.
    fn install_snapshot(&self, address: &str, header: Bytes, file: Arc<dyn DiskFile>) -> Call<Bytes>;

    /// Hands a proposal to the leader.
    fn propose(&self, address: &str, request: ProposeRequest) -> Call<ProposeResponse>;

    /// Asks the leader how far a reader has to be.
    fn read_index(&self, address: &str) -> Call<ReadIndexResponse>;

    /// Asks to be taken in.
    fn add_member(&self, address: &str, request: AddMemberRequest) -> Call<AddMemberResponse>;

    /// Tells how full this server's data folder is.
    fn report_space(&self, address: &str, report: SpaceReport) -> Call<()>;

    /// Asks to stand for election.
    fn take_over(&self, address: &str, request: TakeOverRequest) -> Call<()>;
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

/// The way to other servers, shared by everything that calls them.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) tracker: TaskTracker,
}
