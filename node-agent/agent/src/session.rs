//! The conversations with the servers: one task per server that is known.
//!
//! Heartbeats go to all of them, pods and reports travel only with the leader. A conversation that breaks is begun
//! anew, at first within a tenth of a second.

mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_proto::node::nodes_client::NodesClient;
use flotilla_proto::node::{
    AgentMessage, Heartbeat, Hello, NodeReport, ServerMessage, StatsReport, Subscribe,
    agent_message::Kind as Say, server_message::Kind as Heard,
};
use flotilla_report::report;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::Cluster;
use crate::directory::Directory;
use crate::identity::Connector;
use crate::logs::LogStreams;
use crate::outbox::Outbox;
use crate::pods::{AssignError, Pods};
use crate::streams::Streams;
use crate::worker::Surroundings;
use wiring::Wiring;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// The first wait before dialling again is between half of this and this; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A server that does not open the conversation, or does not take a message, within this time is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A conversation that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(5);
/// Messages that wait for the transport; reports are taken from the outbox only as it drains.
const OUT_MAX: usize = 64;

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the server does not answer")]
    Silent,
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("the server closed the session")]
    Closed,
    #[error(transparent)]
    Assign(#[from] AssignError),
}

impl From<tonic::Status> for SessionError {
    fn from(status: tonic::Status) -> Self {
        SessionError::Status(Box::new(status))
    }
}

/// What all conversations share.
pub(crate) struct Conversations {
    pub(crate) node_name: String,
    pub(crate) connectors: watch::Receiver<Connector>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) cluster: Arc<Cluster>,
    /// The Node object as JSON.
    pub(crate) node: watch::Receiver<bytes::Bytes>,
    /// What the node and its pods use, as JSON.
    pub(crate) stats: watch::Receiver<bytes::Bytes>,
    pub(crate) tracker: TaskTracker,
    pub(crate) streams: Arc<Streams>,
}

/// Keeps one conversation with every server that is known.
pub(crate) async fn run(shared: Arc<Conversations>, shutdown: CancellationToken) {
    let mut servers = shared.directory.servers();
    let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
    loop {
        let wanted: BTreeSet<String> = servers.borrow_and_update().clone();
        running.retain(|address, cancel| {
            let keep = wanted.contains(address);
            if !keep {
                cancel.cancel();
            }
            keep
        });
        for address in wanted {
            running.entry(address.clone()).or_insert_with(|| {
                let cancel = shutdown.child_token();
                shared
                    .tracker
                    .spawn(keep_talking(shared.clone(), address, cancel.clone()));
                cancel
            });
        }
        // Both arms only wait.
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = servers.changed() => if changed.is_err() { return },
        }
    }
}

async fn keep_talking(shared: Arc<Conversations>, address: String, shutdown: CancellationToken) {
    let mut wait = FIRST_WAIT;
    let mut is_told = false;
    loop {
        let begin = Instant::now();
        let mut is_open = false;
        // Dropping a conversation loses nothing: what was not acknowledged is told again in the next.
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = converse(&shared, &address, &mut is_open) => ended,
        };
        if is_open || !is_told {
            is_told = true;
            tracing::warn!(
                server = address,
                error = report(&ended),
                "no session with a server; trying on"
            );
        }
        if begin.elapsed() >= GOOD {
            wait = FIRST_WAIT;
        }
        let jittered = wait.mul_f64(rand::rng().random_range(0.5..1.0));
        wait = (wait * 2).min(LONGEST_WAIT);
        // Both arms only wait.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(jittered) => {}
        }
    }
}

async fn converse(shared: &Conversations, address: &str, is_open: &mut bool) -> SessionError {
    match talk(shared, address, is_open).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn talk(
    shared: &Conversations,
    address: &str,
    is_open: &mut bool,
) -> Result<std::convert::Infallible, SessionError> {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let channel = (shared.connectors.borrow().clone())(address);
    let (out, outgoing) = mpsc::channel(OUT_MAX);
    let mut node = shared.node.clone();
    let mut stats = shared.stats.clone();
    // A server that is new hears at once what the others know; before the first measurement there is nothing.
    if !stats.borrow_and_update().is_empty() {
        stats.mark_changed();
    }
    let mut session = Session {
        shared,
        address,
        number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        out,
        is_synced: false,
        wiring: Wiring::new(shared.surroundings.machine.clone(), shared.cluster.clone()),
        logs: LogStreams::new(shared.tracker.clone()),
    };
    let node_json = node.borrow_and_update().clone();
    let agent_version = env!("CARGO_PKG_VERSION").to_owned();
    session
        .say(Say::Hello(Hello {
            node_name: shared.node_name.clone(),
            agent_version,
            node_json,
        }))
        .await?;
    let mut client = NodesClient::new(channel);
    let call = client.session(ReceiverStream::new(outgoing));
    let mut incoming = timeout(ANSWER_LIMIT, call)
        .await
        .map_err(|_| SessionError::Silent)??
        .into_inner();
    *is_open = true;
    tracing::info!(server = address, "session open");
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outbox = &shared.surroundings.outbox;
    loop {
        // Every arm is cancel safe: a message is taken whole or not at all, the others only wait.
        tokio::select! {
            message = incoming.message() => session.hear(message?.ok_or(SessionError::Closed)?).await?,
            _ = heartbeat.tick() => session.say(Say::Heartbeat(Heartbeat {})).await?,
            () = outbox.due(session.number), if session.is_synced => session.report(outbox).await?,
            () = session.wiring.due() => session.wiring.work().await,
            // Every server is to know it: one that comes to lead writes down what it heard last.
            Ok(()) = node.changed() => {
                let node_json = node.borrow_and_update().clone();
                session.say(Say::Node(NodeReport { node_json })).await?;
            }
            Ok(()) = stats.changed() => {
                let stats_json = stats.borrow_and_update().clone();
                session.say(Say::Stats(StatsReport { stats_json })).await?;
            }
        }
    }
}

struct Session<'a> {
    shared: &'a Conversations,
    address: &'a str,
    number: u64,
    out: mpsc::Sender<AgentMessage>,
    is_synced: bool,
    wiring: Wiring,
    logs: LogStreams,
}

impl Session<'_> {
    async fn say(&self, kind: Say) -> Result<(), SessionError> {
        self.send(AgentMessage { kind: Some(kind) }).await
    }

    async fn send(&self, message: AgentMessage) -> Result<(), SessionError> {
        match timeout(ANSWER_LIMIT, self.out.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SessionError::Closed),
            Err(_) => Err(SessionError::Silent),
        }
    }

    async fn report(&self, outbox: &Outbox) -> Result<(), SessionError> {
        for message in outbox.take(self.number) {
            self.send(message).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, message: ServerMessage) -> Result<(), SessionError> {
        let pods = &self.shared.pods;
        match message.kind {
            Some(Heard::Welcome(welcome)) => self.leader(welcome.is_leader, &welcome.servers).await?,
            Some(Heard::Leader(leader)) => self.leader(leader.is_leader, &leader.servers).await?,
            Some(Heard::SyncBegin(begin)) => pods.begin_sync(self.number, begin.term),
            Some(Heard::Pod(assignment)) => pods.assign(self.number, assignment)?,
            Some(Heard::SyncEnd(_)) => {
                self.is_synced = pods.end_sync(self.number);
            }
            Some(Heard::PodRemoved(removed)) => pods.removed(self.number, &removed),
            Some(Heard::Routes(routes)) => self.wiring.set_routes(routes).await,
            Some(Heard::Config(config)) => self.wiring.configure(config).await,
            Some(Heard::Ack(ack)) => {
                if let Some(uid) = self.shared.surroundings.outbox.acknowledge(ack.sequence) {
                    pods.ended(&uid);
                }
            }
            Some(Heard::Log(request)) => {
                self.logs
                    .open(request, pods, self.shared.surroundings.clone(), self.out.clone());
            }
            Some(Heard::LogMore(more)) => self.logs.grant(more.request, more.chunks),
            Some(Heard::OpenStream(wanted)) => self.shared.streams.open(self.address, wanted),
            Some(Heard::LogCancel(cancel)) => self.logs.cancel(cancel.request),
            Some(Heard::Refused(refused)) => {
                tracing::info!(reason = refused.reason, "a server refuses to hand out pods");
                self.is_synced = false;
            }
            None => {}
        }
        Ok(())
    }

    async fn leader(&mut self, is_leader: bool, servers: &[String]) -> Result<(), SessionError> {
        self.shared.directory.update(servers);
        self.is_synced = false;
        if is_leader {
            self.say(Say::Subscribe(Subscribe {})).await?;
        }
        Ok(())
    }
}
