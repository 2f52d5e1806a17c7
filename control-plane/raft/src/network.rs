//! Calls to other servers: what they are, whatever carries them, and openraft's network on top.

mod grpc;
mod link;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::peer::{
    AddMemberRequest, AddMemberResponse, ConfirmMemberRequest, ConfirmMemberResponse, EndTermRequest,
    EndTermResponse, MemberStatesResponse, ProposeRequest, ProposeResponse, ReadIndexResponse,
    RemoveMemberRequest, RemoveMemberResponse, SpaceReport, TakeOverRequest,
};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
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
    /// The caller's cluster was reset or restored without it, and nothing has happened.
    #[error("{0}")]
    LeftBehind(String),
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
    /// From now on calls are made as a member of this cluster.
    fn introduce(&self, _cluster: &str) {}

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

    /// Tells that the caller stops leading.
    fn end_term(&self, address: &str, request: EndTermRequest) -> Call<EndTermResponse>;

    /// Asks to stand for election.
    fn take_over(&self, address: &str, request: TakeOverRequest) -> Call<()>;

    /// Asks the leader what it knows of each member.
    fn member_states(&self, address: &str) -> Call<MemberStatesResponse>;

    /// Asks the leader to take a member out.
    fn remove_member(&self, address: &str, request: RemoveMemberRequest) -> Call<RemoveMemberResponse>;

    /// Asks the leader whether someone is a member.
    fn confirm_member(&self, address: &str, request: ConfirmMemberRequest) -> Call<ConfirmMemberResponse>;
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
    /// When each member last answered openraft.
    heard: Arc<Mutex<BTreeMap<u64, Instant>>>,
    /// What was said, when another server has called this one left behind.
    pub(crate) left_behind: watch::Sender<Option<String>>,
}

impl Peers {
    pub(crate) fn new(transport: Arc<dyn Transport>, tracker: TaskTracker) -> Peers {
        Peers {
            transport,
            tracker,
            heard: Arc::default(),
            left_behind: watch::Sender::new(None),
        }
    }

    /// A member has answered just now.
    fn hear(&self, id: u64) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(id, Instant::now());
    }

    /// Remembers it when another server calls this one left behind.
    pub(crate) fn notice<T>(&self, answer: Result<T, CallError>) -> Result<T, CallError> {
        if let Err(CallError::LeftBehind(said)) = &answer {
            self.left_behind.send_replace(Some(said.clone()));
        }
        answer
    }

    /// How long ago members have last answered.
    pub(crate) fn silences(&self) -> BTreeMap<u64, Duration> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().map(|(id, at)| (*id, at.elapsed())).collect()
    }
}
