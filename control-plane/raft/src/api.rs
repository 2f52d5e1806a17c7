#![allow(clippy::todo, unused)]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_store::{Event, HistoryLimits, Outcome, ResourceName, Revision, Snapshot, Transaction};

/// Makes a lazy channel to `host:port`; TLS is the caller's.
pub type PeerConnector = Arc<dyn Fn(&str) -> tonic::transport::Channel + Send + Sync>;

/// How fast a lost leader is noticed.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time between a leader's heartbeats.
    pub heartbeat: Duration,
    /// Shortest silence after which a follower stands for election.
    pub election_min: Duration,
    /// Longest silence after which a follower stands for election.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(800),
        }
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Watch history per resource.
    pub history: HistoryLimits,
    /// Log entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Log entries kept behind a snapshot for followers that lag.
    pub kept_entries: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            history: HistoryLimits::default(),
            snapshot_entries: 10_000,
            kept_entries: 2_000,
        }
    }
}

/// What a replica is told at its start.
#[derive(Clone)]
pub struct Options {
    /// Identity of the member, never zero; its address may change, this never.
    pub id: u64,
    /// The server's node name.
    pub name: String,
    /// `host:port` that other servers dial.
    pub address: String,
    /// Folder of this replica alone.
    pub data_dir: PathBuf,
    /// How to reach other servers.
    pub connector: PeerConnector,
    /// How fast a lost leader is noticed.
    pub timing: Timing,
    /// How much is kept.
    pub limits: Limits,
}

/// Why a replica cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder holds what nothing of ours wrote.
    #[error("corrupted")]
    Corrupted,
}

/// Why a cluster cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It is a member of a cluster already.
    #[error("this replica is already a member of a cluster")]
    AlreadyInitialized,
}

/// Why a replica could not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No server took it in.
    #[error("no server took this replica in")]
    Refused,
}

/// Why there is no linearizable snapshot now.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No leader could be asked in time.
    #[error("no leader could confirm the read: {0}")]
    Unavailable(String),
}

/// Why a proposal has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// It surely did not happen and will not.
    #[error("the proposal could not be made: {0}")]
    Unavailable(String),
    /// It may have happened, or may happen yet.
    #[error("it is not known whether the proposal was carried out: {0}")]
    Unknown(String),
}

/// Why a watch ends.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The wanted events are no longer kept.
    #[error("changes before revision {oldest} are no longer kept")]
    Expired {
        /// Watching can start here or later.
        oldest: Revision,
    },
    /// The replica is shutting down.
    #[error("the replica is shutting down")]
    Closed,
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: u64,
    /// Its node name.
    pub name: String,
    /// `host:port` under which others dial it.
    pub address: String,
    /// Whether it votes; else it is a learner.
    pub voter: bool,
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Raft's term.
    pub term: u64,
    /// The leader of the term, once known.
    pub leader: Option<Member>,
    /// This replica leads, and has applied an entry of its own term.
    pub is_self: bool,
}

/// Events in order, and how far they reach.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The events; may be empty when only others' namespaces had news.
    pub events: Vec<Arc<Event>>,
    /// Everything up to here has been delivered.
    pub revision: Revision,
}

/// Follows the changes of one resource.
pub struct Watch {}

impl Watch {
    /// Waits for news. Cancel safe.
    pub async fn next(&mut self) -> Result<Batch, WatchError> {
        todo!()
    }

    /// How far this watch has seen everything, for bookmarks; never waits.
    pub fn progress(&mut self) -> Revision {
        todo!()
    }
}

/// One replica of the store. Clones are handles of the same replica.
#[derive(Clone)]
pub struct Replica {}

/// Answers other servers' calls.
pub struct PeerService {}

#[tonic::async_trait]
impl flotilla_proto::peer::peer_server::Peer for PeerService {
    async fn append_entries(
        &self,
        request: tonic::Request<flotilla_proto::peer::RaftMessage>,
    ) -> Result<tonic::Response<flotilla_proto::peer::RaftMessage>, tonic::Status> {
        todo!()
    }
    async fn vote(
        &self,
        request: tonic::Request<flotilla_proto::peer::RaftMessage>,
    ) -> Result<tonic::Response<flotilla_proto::peer::RaftMessage>, tonic::Status> {
        todo!()
    }
    async fn install_snapshot(
        &self,
        request: tonic::Request<tonic::Streaming<flotilla_proto::peer::SnapshotChunk>>,
    ) -> Result<tonic::Response<flotilla_proto::peer::RaftMessage>, tonic::Status> {
        todo!()
    }
    async fn propose(
        &self,
        request: tonic::Request<flotilla_proto::peer::ProposeRequest>,
    ) -> Result<tonic::Response<flotilla_proto::peer::ProposeResponse>, tonic::Status> {
        todo!()
    }
    async fn read_index(
        &self,
        request: tonic::Request<flotilla_proto::peer::ReadIndexRequest>,
    ) -> Result<tonic::Response<flotilla_proto::peer::ReadIndexResponse>, tonic::Status> {
        todo!()
    }
    async fn add_member(
        &self,
        request: tonic::Request<flotilla_proto::peer::AddMemberRequest>,
    ) -> Result<tonic::Response<flotilla_proto::peer::AddMemberResponse>, tonic::Status> {
        todo!()
    }
}

impl Replica {
    /// Opens the replica in its folder, recovering what is there.
    pub async fn open(options: Options) -> Result<Replica, OpenError> {
        todo!()
    }

    /// Whether it is a member of a cluster.
    pub fn is_initialized(&self) -> bool {
        todo!()
    }

    /// Starts a new cluster with this replica as its only member.
    pub async fn bootstrap(&self) -> Result<(), BootstrapError> {
        todo!()
    }

    /// Becomes a member of the cluster of `servers`, or announces a new address there.
    pub async fn join(&self, servers: &[String]) -> Result<(), JoinError> {
        todo!()
    }

    /// The service that other servers call.
    pub fn peer_service(&self) -> flotilla_proto::peer::peer_server::PeerServer<PeerService> {
        todo!()
    }

    /// The local state; may be stale.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }

    /// A linearizable snapshot, on every replica.
    pub async fn read(&self) -> Result<Snapshot, ReadError> {
        todo!()
    }

    /// Proposes a transaction and waits until it is applied.
    pub async fn propose(&self, transaction: Transaction) -> Result<Outcome, ProposeError> {
        todo!()
    }

    /// Follows a resource's changes after a revision.
    pub fn watch(
        &self,
        resource: ResourceName,
        namespace: Option<String>,
        after: Revision,
    ) -> Result<Watch, WatchError> {
        todo!()
    }

    /// Who leads.
    pub fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership> {
        todo!()
    }

    /// The servers of the cluster.
    pub fn members(&self) -> Vec<Member> {
        todo!()
    }

    /// Stops, handing leadership over where possible.
    pub async fn shutdown(&self) {
        todo!()
    }
}
