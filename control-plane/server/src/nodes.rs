//! The conversations with node agents: joining, sessions, pods out, statuses in, logs, streams.
//!
//! Every agent holds a session with every server. Heartbeats land in this server's memory ([`liveness`]); pods travel
//! only on the session with the leader ([`assignments`]); log requests go over whichever server was asked
//! ([`logs`]).

mod assignments;
mod blobs;
mod disks;
mod follow;
mod join;
mod liveness;
mod logs;
mod mirrors;
mod registration;
mod reports;
mod session;
mod stats;
mod streams;
mod subscription;
mod tokens;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use flotilla_apiserver::ServiceAccountKeys;
use flotilla_pki::PeerIdentity;
use flotilla_proto::node::{
    AgentMessage, BlobRequest, DiskReport, DiskReported, FollowEvent, FollowRequest, JoinRequest,
    JoinResponse, RenewRequest, RenewResponse, ServerMessage, StreamFrame, TokenRequest, TokenResponse,
    nodes_server, server_message::Kind as Said,
};
use flotilla_resources::Resources;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

pub(crate) use assignments::Assignments;
pub(crate) use join::{TOKEN_NAMESPACE, TOKEN_SECRET_TYPE, USAGE_SERVERS, token_secret_name};
pub(crate) use liveness::Liveness;
use logs::LogStreams;
use stats::Stats;
use streams::Openings;

use crate::material::Material;

/// Messages that wait for one agent; each subscription sends no faster than the agent takes them.
const OUTBOX_MAX: usize = 256;

pub(crate) type Outbox = mpsc::Sender<Result<ServerMessage, Status>>;

/// The server's side of all conversations with nodes. A clone is a handle.
#[derive(Clone)]
pub(crate) struct Nodes {
    inner: Arc<Inner>,
}

struct Inner {
    resources: Resources,
    material: Material,
    /// Signs tokens for pods.
    account_keys: Option<ServiceAccountKeys>,
    liveness: Arc<Liveness>,
    /// What this server knows and does only while it leads.
    leading: watch::Receiver<Option<Arc<Assignments>>>,
    sessions: Mutex<HashMap<String, Session>>,
    logs: LogStreams,
    openings: Openings,
    stats: Stats,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

/// The newest session of a node.
#[derive(Clone)]
struct Session {
    number: u64,
    outbox: Outbox,
}

impl Nodes {
    pub(crate) fn new(
        resources: Resources,
        material: Material,
        liveness: Arc<Liveness>,
        leading: watch::Receiver<Option<Arc<Assignments>>>,
        shutdown: CancellationToken,
    ) -> Self {
        let inner = Inner {
            resources,
            account_keys: crate::server::service_account_keys(&material),
            material,
            liveness,
            leading,
            sessions: Mutex::default(),
            logs: LogStreams::default(),
            openings: Openings::default(),
            stats: Stats::default(),
            tracker: TaskTracker::new(),
            shutdown,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn service(&self) -> nodes_server::NodesServer<Self> {
        nodes_server::NodesServer::new(self.clone())
    }

    pub(crate) fn material(&self) -> &Material {
        &self.inner.material
    }

    fn connected_nodes(&self) -> Vec<String> {
        let sessions = self.inner.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.keys().cloned().collect()
    }

    fn session_of(&self, node: &str) -> Option<Session> {
        self.inner
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(node)
            .cloned()
    }
}

#[tonic::async_trait]
impl nodes_server::Nodes for Nodes {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        join::join(&self.inner.resources, &self.inner.material, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let node = node_name(&request)?;
        join::renew(&self.inner.material, &node, &request.into_inner()).map(Response::new)
    }

    async fn disk(&self, request: Request<DiskReport>) -> Result<Response<DiskReported>, Status> {
        let node = node_name(&request)?;
        disks::report(&self.inner.resources, &node, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn token(&self, request: Request<TokenRequest>) -> Result<Response<TokenResponse>, Status> {
        let node = node_name(&request)?;
        tokens::issue(self, &node, request.into_inner())
            .await
            .map(Response::new)
    }

    type SessionStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = node_name(&request)?;
        let (outbox, receiver) = mpsc::channel(OUTBOX_MAX);
        let (nodes, messages) = (self.clone(), request.into_inner());
        self.inner
            .tracker
            .spawn(async move { session::converse(nodes, node, messages, outbox).await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type StreamStream = streams::Frames;

    async fn stream(
        &self,
        request: Request<Streaming<StreamFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let node = node_name(&request)?;
        let frames = self.accept_stream(&node, request.into_inner()).await?;
        Ok(Response::new(frames))
    }

    type BlobStream = blobs::Chunks;

    async fn blob(&self, request: Request<BlobRequest>) -> Result<Response<Self::BlobStream>, Status> {
        let node = node_name(&request)?;
        self.relay_blob(&node, request.into_inner())
            .await
            .map(Response::new)
    }

    type FollowStream = ReceiverStream<Result<FollowEvent, Status>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        node_name(&request)?;
        let request = request.into_inner();
        let slim = follow::allowed(&request)?;
        let (outgoing, receiver) = mpsc::channel(OUTBOX_MAX);
        let replica = self.inner.resources.replica().clone();
        let shutdown = self.inner.shutdown.clone();
        self.inner
            .tracker
            .spawn(follow::serve(replica, request, slim, outgoing, shutdown));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// The node that the caller's certificate names.
fn node_name<T>(request: &Request<T>) -> Result<String, Status> {
    let peer = request.extensions().get::<PeerIdentity>();
    let name = peer.and_then(PeerIdentity::node_name);
    name.map(str::to_owned).ok_or_else(|| {
        Status::unauthenticated("only a node may do this: a certificate of system:nodes is needed")
    })
}

fn say(kind: Said) -> Result<ServerMessage, Status> {
    Ok(ServerMessage { kind: Some(kind) })
}
