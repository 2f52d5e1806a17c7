//! One member of the cluster: opens its data, starts its tasks, answers its callers.

mod hand_over;
mod join;
mod open;
mod roll;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use flotilla_proto::peer::peer_server::PeerServer;
use flotilla_report::report;
use flotilla_store::{Outcome, ResourceName, Revision, Snapshot, Transaction};
use openraft::error::{InitializeError, RaftError};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::consensus::{PeerNode, Raft};
use crate::leadership::{Leadership, may_lead};
use crate::members::{
    self, BootstrapError, JoinError, Member, MemberState, Members, Removal, RemoveMemberError,
};
use crate::network::{GrpcPeerService, Peers, grpc_service};
use crate::options::Options;
use crate::proposer::{ProposeError, Proposer};
use crate::reader::{ReadError, Reader};
use crate::runtime::Clock;
use crate::service::PeerService;
use crate::shared::Shared;
use crate::space::Space;
use crate::status::StoreStatus;
use crate::storage::{About, LogStore, OpenError, SnapshotFolder};
use crate::watch::{Watch, WatchError};

/// How long a new cluster may take to have its leader.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(10);
/// One replica of the store. Clones are handles of the same one.
///
/// Call [`Replica::shutdown`] before the last handle goes; without it the replica stops as if it had crashed,
/// which loses nothing that was acknowledged.
#[derive(Clone)]
pub struct Replica {
    core: Arc<Core>,
}

pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) raft: Raft,
    pub(crate) proposer: Proposer,
    pub(crate) reader: Reader,
    pub(crate) members: Arc<Members>,
    pub(crate) peers: Peers,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) tracker: TaskTracker,
    pub(crate) snapshots: Arc<SnapshotFolder>,
    pub(crate) space: Arc<Space>,
    /// Whether a cluster knows this replica; see [`PeerService`].
    pub(crate) admitted: watch::Sender<bool>,
    /// The cluster that the data folder belongs to; nothing before it belongs to one.
    pub(crate) about: ArcSwapOption<About>,
    /// The clock that openraft goes by.
    clock: Arc<Clock>,
    /// The newest term whose leader has said that it stops.
    ended_term: AtomicU64,
    pub(crate) shared: Arc<Shared>,
    log: LogStore,
}

impl Replica {
    /// Opens the replica in its folder and recovers what is there.
    ///
    /// A new replica does nothing until [`Replica::bootstrap`] or [`Replica::join`]; one that was a member
    /// before takes part again at once.
    pub async fn open(options: Options) -> Result<Replica, OpenError> {
        Ok(Replica {
            core: Arc::new(open::open(options).await?),
        })
    }

    /// Whether it is a member of a cluster.
    pub fn is_initialized(&self) -> bool {
        self.core.is_initialized()
    }

    /// Starts a new cluster with this replica as its only member, and waits until it leads.
    pub async fn bootstrap(&self) -> Result<(), BootstrapError> {
        let core = &self.core;
        // Ids of members are never used twice, so neither is this.
        let about = About::new(&format!("{:x}", core.options.id));
        core.belong_to(about)
            .await
            .map_err(|error| BootstrapError::Failed(error.to_string()))?;
        let node = PeerNode {
            name: core.options.name.clone(),
            address: core.options.address.clone(),
        };
        let members = std::collections::BTreeMap::from([(core.options.id, node)]);
        core.raft.initialize(members).await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => BootstrapError::AlreadyInitialized,
            error => BootstrapError::Failed(error.to_string()),
        })?;
        core.admitted.send_replace(true);
        let mut leadership = self.leadership();
        let leads = leadership.wait_for(|leadership| leadership.is_self);
        match tokio::time::timeout(BOOTSTRAP_LIMIT, leads).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(BootstrapError::Failed(
                "it did not become its own leader in time".to_owned(),
            )),
        }
    }

    /// Becomes a member of the cluster that `servers` (`host:port`) belong to, and returns once it votes.
    ///
    /// A member that comes back calls it as well, to announce its present address.
    pub async fn join(&self, servers: &[String]) -> Result<(), JoinError> {
        join::join(&self.core, servers).await
    }

    /// The gRPC service that other servers call. Serve it before [`Replica::join`].
    pub fn peer_service(&self) -> PeerServer<GrpcPeerService> {
        grpc_service(self.peer_answers())
    }

    /// What [`Replica::peer_service`] is a shell of, for another [`Transport`](crate::Transport).
    pub fn peer_answers(&self) -> PeerService {
        PeerService::new(&self.core)
    }

    /// Why the replica has stopped by itself, for people; it then answers nothing until it is opened again.
    pub fn failure(&self) -> Option<String> {
        self.core.shared.failure().map(str::to_owned)
    }

    /// The local state, which may be stale.
    pub fn snapshot(&self) -> Snapshot {
        self.core.shared.snapshot()
    }

    /// A snapshot with everything that any replica acknowledged before this call.
    pub async fn read(&self) -> Result<Snapshot, ReadError> {
        match self.failure() {
            Some(reason) => Err(ReadError::Unavailable(reason)),
            None => self.core.reader.read().await,
        }
    }

    /// Proposes a transaction through the leader, and waits until it is applied there.
    ///
    /// Tries again, within a limit of seconds, only while it is sure that nothing has happened.
    pub async fn propose(&self, transaction: Transaction) -> Result<Outcome, ProposeError> {
        match self.failure() {
            Some(reason) => Err(ProposeError::Unavailable(reason)),
            None => self.core.proposer.propose(&transaction).await,
        }
    }

    /// Follows the changes of a resource (in one namespace) after a revision, from the local state.
    ///
    /// `after` may lie ahead of the local state; the watch then waits for it.
    pub fn watch(
        &self,
        resource: ResourceName,
        namespace: Option<String>,
        after: Revision,
    ) -> Result<Watch, WatchError> {
        Watch::start(Arc::clone(&self.core.shared), resource, namespace, after)
    }

    /// How the store is doing, for those who watch over it.
    pub fn status(&self) -> StoreStatus {
        StoreStatus::of(&self.core)
    }

    /// Who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.core.leadership.clone()
    }

    /// The servers of the cluster, as far as this replica knows.
    pub fn members(&self) -> Vec<Member> {
        members::list(&self.core.members.membership())
    }

    /// What is known of each server: as the leader knows it, or as this replica does where no leader answers.
    pub async fn member_states(&self) -> Vec<MemberState> {
        self.core.member_states().await
    }

    /// Takes a server out of the cluster; a leader hands over first. `force`: also when those that are left and
    /// answer are no majority.
    pub async fn remove_member(&self, id: u64, force: bool) -> Result<(), RemoveMemberError> {
        self.core.remove_member(Removal { id, force }).await
    }

    /// Returns when this replica is no member of its cluster any more, or when it stops.
    pub async fn expelled(&self) -> Expulsion {
        self.core.watch_standing().await
    }

    /// The identity of the cluster; empty before there is one. A reset or restored cluster has a new one.
    pub fn cluster(&self) -> String {
        let about = self.core.about.load();
        about
            .as_ref()
            .map(|about| about.cluster.clone())
            .unwrap_or_default()
    }

    /// The newest term of a leader whose entries are applied here.
    pub fn term(&self) -> u64 {
        self.core.shared.term()
    }

    /// Lets another replica lead, if this one does; this one goes on as a follower.
    pub async fn resign(&self) {
        let core = &self.core;
        if !core.shared.closed.is_cancelled() && may_lead(&core.raft) {
            core.hand_over().await;
        }
    }

    /// Stops the replica; a leader hands over first.
    pub async fn shutdown(&self) {
        self.resign().await;
        self.core.stop().await;
    }
}

/// Why a replica is no member any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expulsion {
    /// It was taken out.
    Removed,
    /// The cluster was reset or restored without it; with what a server of the cluster said.
    LeftBehind(String),
    /// None of that: the replica stops.
    Stopped,
}

impl Core {
    /// Remembers durably which cluster this replica belongs to, and tells others from now on.
    pub(crate) async fn belong_to(&self, about: About) -> io::Result<()> {
        if self.about.load().as_deref() == Some(&about) {
            return Ok(());
        }
        let (files, folder) = (
            Arc::clone(&self.options.platform.files),
            self.options.data_dir.clone(),
        );
        let written = about.clone();
        let write = move || written.write(&*files, &folder);
        self.options.platform.blocking(write).await??;
        self.peers.transport.introduce(&about.cluster);
        self.about.store(Some(Arc::new(about)));
        Ok(())
    }

    pub(crate) fn is_initialized(&self) -> bool {
        self.raft
            .server_metrics()
            .borrow()
            .membership_config
            .nodes()
            .next()
            .is_some()
    }

    async fn stop(&self) {
        self.shared.closed.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(error = report(&error), "the consensus task had ended badly");
        }
        let log = self.log.clone();
        let closed = self.options.platform.blocking(move || log.close()).await;
        if let Err(error) = closed {
            tracing::warn!(error = report(&error), "the log could not be closed in order");
        }
        self.tracker.close();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.shared.closed.is_cancelled() {
            return;
        }
        self.shared.closed.cancel();
        // openraft's tasks keep each other alive, so somebody has to tell them.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (raft, log) = (self.raft.clone(), self.log.clone());
            let stop = async move {
                if let Err(error) = raft.shutdown().await {
                    tracing::warn!(error = report(&error), "the consensus task had ended badly");
                }
                log.close();
            };
            self.tracker.spawn_on(stop, &runtime);
        }
    }
}
