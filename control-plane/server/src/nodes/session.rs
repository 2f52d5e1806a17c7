//! One agent's conversation with this server, from hello to the end of the connection.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use flotilla_proto::node::{
    AgentMessage, Hello, Leader, Refused, Welcome, agent_message::Kind as Heard, server_message::Kind as Said,
};
use flotilla_raft::Leadership;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::{
    Assignments, Nodes, Outbox, Session, registration, reports::Reports, say, subscription::Subscription,
};

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Talks with one agent until it goes away, this server shuts down, or something fails; the agent then dials again.
pub(super) async fn converse(
    nodes: Nodes,
    node: String,
    mut messages: Streaming<AgentMessage>,
    outbox: Outbox,
) {
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let shutdown = nodes.inner.shutdown.clone();
    // Dropping the conversation loses nothing that was acknowledged: reports are acknowledged once stored.
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = talk(&nodes, &node, number, &mut messages, &outbox) => ended,
    };
    nodes.forget(&node, number);
    if let Err(status) = ended {
        tracing::info!(node, error = status.message(), "a node's session ended");
        // The agent may be gone already; then nobody needs to be told.
        let _ = outbox.send(Err(status)).await;
    }
}

async fn talk(
    nodes: &Nodes,
    node: &str,
    number: u64,
    messages: &mut Streaming<AgentMessage>,
    outbox: &Outbox,
) -> Result<(), Status> {
    let hello = expect_hello(messages, node).await?;
    nodes.remember(
        node,
        Session {
            number,
            outbox: outbox.clone(),
        },
    );
    nodes.inner.liveness.note(node);
    let mut leadership = nodes.inner.resources.replica().leadership();
    let mut leading = nodes.inner.leading.clone();
    // Whatever changes after this is told as well: a leader becomes ready to hand out pods a moment after it is elected.
    leading.mark_unchanged();
    let now = leadership.borrow_and_update().clone();
    send(outbox, Said::Welcome(nodes.welcome(&now))).await?;
    let mut conversation = Conversation {
        nodes,
        node,
        number,
        outbox,
        node_json: hello.node_json.to_vec(),
        subscribed: None,
    };
    loop {
        // Both arms are cancel safe: a message is taken whole or not at all.
        tokio::select! {
            message = messages.message() => match message? {
                None => return Ok(()),
                Some(message) => if let Some(kind) = message.kind { conversation.hear(kind).await? },
            },
            changed = leadership.changed() => {
                changed.map_err(|_| Status::unavailable("the server is shutting down"))?;
                let now = leadership.borrow_and_update().clone();
                conversation.tell_leader(&now).await?;
            }
            changed = leading.changed() => {
                changed.map_err(|_| Status::unavailable("the server is shutting down"))?;
                let now = leadership.borrow().clone();
                conversation.tell_leader(&now).await?;
            }
            () = conversation.subscription_ended() => {
                conversation.subscribed = None;
            }
        }
    }
}

async fn expect_hello(messages: &mut Streaming<AgentMessage>, node: &str) -> Result<Hello, Status> {
    let first = messages.message().await?.and_then(|message| message.kind);
    match first {
        Some(Heard::Hello(hello)) if hello.node_name == node => Ok(hello),
        Some(Heard::Hello(hello)) => Err(Status::permission_denied(format!(
            "the certificate is for node {node:?}, the session for {:?}: each node needs its own data folder",
            hello.node_name
        ))),
        _ => Err(Status::invalid_argument("a session starts with hello")),
    }
}

async fn send(outbox: &Outbox, kind: Said) -> Result<(), Status> {
    outbox
        .send(say(kind))
        .await
        .map_err(|_| Status::cancelled("the agent has gone"))
}

impl Nodes {
    fn remember(&self, node: &str, session: Session) {
        self.inner
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.to_owned(), session);
    }

    /// Forgets the session, unless the node has a newer one.
    fn forget(&self, node: &str, number: u64) {
        let mut sessions = self.inner.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(node).is_some_and(|session| session.number == number) {
            sessions.remove(node);
        }
        drop(sessions);
        self.inner.logs.end_session(number);
        self.inner.openings.end_session(number);
    }

    fn welcome(&self, leadership: &Leadership) -> Welcome {
        Welcome {
            server_id: self.material().member.id.to_string(),
            is_leader: self.hands_out_pods(leadership),
            leader_address: leader_address(leadership),
            servers: server_addresses(leadership),
        }
    }

    /// Whether this server leads and is ready to hand out pods.
    fn hands_out_pods(&self, leadership: &Leadership) -> bool {
        leadership.is_self && self.assignments().is_some()
    }

    fn assignments(&self) -> Option<Arc<Assignments>> {
        self.inner.leading.borrow().clone()
    }
}

fn server_addresses(leadership: &Leadership) -> Vec<String> {
    leadership
        .members
        .iter()
        .map(|member| member.address.clone())
        .collect()
}

fn leader_address(leadership: &Leadership) -> String {
    leadership
        .leader
        .as_ref()
        .map(|leader| leader.address.clone())
        .unwrap_or_default()
}

struct Conversation<'a> {
    nodes: &'a Nodes,
    node: &'a str,
    number: u64,
    outbox: &'a Outbox,
    /// The node as the agent last described it.
    node_json: Vec<u8>,
    subscribed: Option<Subscribed>,
}

/// The agent gets its pods here and reports here, as long as this server leads.
struct Subscribed {
    assignments: Arc<Assignments>,
    reports: Reports,
    ended: CancellationToken,
    _stop: DropGuard,
}

impl Conversation<'_> {
    async fn hear(&mut self, message: Heard) -> Result<(), Status> {
        match message {
            Heard::Hello(_) => Err(Status::invalid_argument("hello was said already")),
            Heard::Heartbeat(_) => self.hear_heartbeat().await,
            Heard::Subscribe(_) => self.subscribe().await,
            Heard::Node(report) => {
                self.node_json = report.node_json.to_vec();
                self.report_node().await
            }
            Heard::Pod(report) => match &self.subscribed {
                Some(subscribed) => subscribed.reports.pod(report).await,
                None => Ok(()),
            },
            Heard::PodGone(gone) => match &self.subscribed {
                Some(subscribed) => subscribed.reports.gone(gone).await,
                None => Ok(()),
            },
            Heard::Mirror(mirror) => match &self.subscribed {
                Some(subscribed) => subscribed.reports.mirror(mirror).await,
                None => Ok(()),
            },
            Heard::Event(event) => {
                super::reports::event(&self.nodes.inner.resources, self.node, event);
                Ok(())
            }
            Heard::Log(chunk) => {
                self.nodes.inner.logs.deliver(self.number, chunk);
                Ok(())
            }
            Heard::Stats(report) => {
                self.nodes.inner.stats.keep(self.node, report.stats_json);
                Ok(())
            }
        }
    }

    async fn hear_heartbeat(&mut self) -> Result<(), Status> {
        // The node may have been called not ready meanwhile: what it is now is written again.
        if self.nodes.inner.liveness.note(self.node) {
            self.report_node().await
        } else {
            Ok(())
        }
    }

    /// Writes the node's status down, if this is the server to do so.
    async fn report_node(&self) -> Result<(), Status> {
        match &self.subscribed {
            Some(subscribed) => registration::register(&subscribed.assignments, self.node, &self.node_json)
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    async fn subscribe(&mut self) -> Result<(), Status> {
        let Some(assignments) = self.nodes.assignments() else {
            let leadership = self.nodes.inner.resources.replica().leadership().borrow().clone();
            send(
                self.outbox,
                Said::Refused(Refused {
                    reason: "this server does not lead".into(),
                }),
            )
            .await?;
            return self.tell_leader(&leadership).await;
        };
        let config = registration::register(&assignments, self.node, &self.node_json).await?;
        send(self.outbox, Said::Config(config)).await?;
        let stop = assignments.stopped().child_token();
        let ended = CancellationToken::new();
        let subscription = Subscription::open(&assignments, self.node);
        let (outbox, guard) = (self.outbox.clone(), ended.clone().drop_guard());
        let stopped = stop.clone();
        self.nodes.inner.tracker.spawn(async move {
            let _ended = guard;
            // Dropping a subscription half-way is harmless: the next one starts with everything.
            tokio::select! {
                () = stopped.cancelled() => {}
                () = subscription.serve(&outbox) => {}
            }
        });
        let reports = Reports::new(
            assignments.clone(),
            self.node,
            self.outbox.clone(),
            self.nodes.inner.tracker.clone(),
        );
        self.subscribed = Some(Subscribed {
            assignments,
            reports,
            ended,
            _stop: stop.drop_guard(),
        });
        Ok(())
    }

    /// Ends when the subscription does, because this server leads no longer or a newer session took over.
    async fn subscription_ended(&self) {
        match &self.subscribed {
            Some(subscribed) => subscribed.ended.cancelled().await,
            None => std::future::pending().await,
        }
    }

    async fn tell_leader(&self, leadership: &Leadership) -> Result<(), Status> {
        let message = Leader {
            is_leader: self.nodes.hands_out_pods(leadership),
            leader_address: leader_address(leadership),
            servers: server_addresses(leadership),
        };
        send(self.outbox, Said::Leader(message)).await
    }
}
