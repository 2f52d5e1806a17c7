//! Streams to nodes: the node is asked over its session and dials back with the stream's id.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use flotilla_api::{Reason, Status};
use flotilla_apiserver::NodeStreams;
use flotilla_proto::node::{OpenStream, StreamFrame, server_message::Kind as Said};
use flotilla_report::report;
use flotilla_tunnel::{Ends, Frame};
use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Nodes, say};

/// How long a node may take to do what is asked and to dial back; connecting to a silent port takes it 5 s.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// How long a node may take for its first frame once it has dialled.
const FIRST_FRAME_LIMIT: Duration = Duration::from_secs(10);

/// What the node's call answers with.
pub(super) type Frames = BoxStream<'static, Result<StreamFrame, tonic::Status>>;

/// Streams that a node was asked for and has not opened yet.
#[derive(Default)]
pub(super) struct Openings {
    waiting: Mutex<HashMap<String, Opening>>,
}

struct Opening {
    node: String,
    session: u64,
    opened: oneshot::Sender<Result<Ends, Status>>,
}

impl Openings {
    /// The opening with this id, if it is `node` that was asked: no node may take another's stream.
    fn take(&self, stream_id: &str, node: &str) -> Option<Opening> {
        let mut waiting = self.waiting();
        waiting.get(stream_id).filter(|opening| opening.node == node)?;
        waiting.remove(stream_id)
    }

    /// A node whose session is gone may never have heard the question.
    pub(super) fn end_session(&self, session: u64) {
        self.waiting().retain(|_, opening| opening.session != session);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Opening>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the question when nobody waits for the answer any more.
struct Asked<'a> {
    openings: &'a Openings,
    stream_id: String,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.openings.waiting().remove(&self.stream_id);
    }
}

impl Nodes {
    /// Opens a stream to a node over whichever server this is: every node has a session with all of them.
    pub(crate) async fn open_stream(
        &self,
        node: &str,
        kind: &str,
        request_json: Bytes,
    ) -> Result<Ends, Status> {
        let away = || {
            unreached(&format!(
                "node {node:?} has no connection to this server: it is down, cut off, or starting"
            ))
        };
        let session = self.session_of(node).ok_or_else(away)?;
        let (opened, answer) = oneshot::channel();
        let asked = Asked {
            openings: &self.inner.openings,
            stream_id: uuid::Uuid::new_v4().to_string(),
        };
        let opening = Opening {
            node: node.to_owned(),
            session: session.number,
            opened,
        };
        asked.openings.waiting().insert(asked.stream_id.clone(), opening);
        let question = OpenStream {
            stream_id: asked.stream_id.clone(),
            kind: kind.to_owned(),
            request_json,
        };
        let sent = session.outbox.send(say(Said::OpenStream(question)));
        let answer = async {
            sent.await.map_err(|_| away())?;
            answer.await.map_err(|_| away())?
        };
        tokio::time::timeout(OPEN_LIMIT, answer)
            .await
            .unwrap_or_else(|_| {
                let limit = OPEN_LIMIT.as_secs();
                Err(unreached(&format!(
                    "node {node:?} did not answer within {limit} s"
                )))
            })
    }

    /// A node dials back.
    pub(super) async fn accept_stream(
        &self,
        node: &str,
        mut incoming: Streaming<StreamFrame>,
    ) -> Result<Frames, tonic::Status> {
        let first = tokio::time::timeout(FIRST_FRAME_LIMIT, incoming.message())
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("the stream's first frame did not come"))??
            .ok_or_else(|| tonic::Status::cancelled("the stream has no first frame"))?;
        let opening = self
            .inner
            .openings
            .take(&first.stream_id, node)
            .ok_or_else(|| tonic::Status::not_found("nobody waits for this stream any more"))?;
        if let Some(refusal) = flotilla_tunnel::refusal(first) {
            // Whoever asked may have gone; then nobody needs to be told.
            let _ = opening.opened.send(Err(refusal));
            return Ok(futures::stream::empty().boxed());
        }
        let (ends, far) = flotilla_tunnel::pair();
        opening
            .opened
            .send(Ok(ends))
            .map_err(|_| tonic::Status::cancelled("the client has gone"))?;
        let (shutdown, node) = (self.inner.shutdown.clone(), node.to_owned());
        self.inner.tracker.spawn(async move {
            // Dropping the rest ends the stream, which is what a shutdown means for it.
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = receive(&node, incoming, far.outgoing) => {}
            }
        });
        let outgoing = ReceiverStream::new(far.incoming);
        Ok(outgoing.map(|frame| Ok(flotilla_tunnel::to_wire(frame))).boxed())
    }
}

/// In Kubernetes' words and with its code: 503 would make clients try again for half a minute before they tell it.
pub(super) fn unreached(why: &str) -> Status {
    Status::new(Reason::InternalError, format!("error dialing backend: {why}"))
}

#[async_trait::async_trait]
impl NodeStreams for Nodes {
    fn nodes(&self) -> Vec<String> {
        let sessions = self.inner.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.keys().cloned().collect()
    }

    async fn open(&self, node: &str, kind: &str, request_json: Bytes) -> Result<Ends, Status> {
        self.open_stream(node, kind, request_json).await
    }
}

/// Hands on what the node sends, until it has ended or nobody listens.
async fn receive(node: &str, mut incoming: Streaming<StreamFrame>, outgoing: mpsc::Sender<Frame>) {
    loop {
        // Whatever is dropped here, nobody listens to it.
        let message = tokio::select! {
            () = outgoing.closed() => return,
            message = incoming.message() => message,
        };
        match message {
            Ok(None) => return,
            Ok(Some(message)) => {
                let Some(frame) = flotilla_tunnel::from_wire(message) else {
                    return tracing::warn!(node, "a node sent a frame on a channel that no stream has");
                };
                if outgoing.send(frame).await.is_err() {
                    return;
                }
            }
            Err(error) => return tracing::debug!(node, error = report(&error), "a stream broke"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(openings: &Openings, node: &str, session: u64) -> oneshot::Receiver<Result<Ends, Status>> {
        let (opened, answer) = oneshot::channel();
        let node = node.to_owned();
        let opening = Opening {
            node,
            session,
            opened,
        };
        openings.waiting().insert("id".to_owned(), opening);
        answer
    }

    #[test]
    fn a_node_cannot_take_anothers_stream() {
        let openings = Openings::default();
        let _answer = waiting(&openings, "a", 1);
        assert!(openings.take("id", "b").is_none());
        assert!(openings.take("id", "a").is_some());
        assert!(openings.take("id", "a").is_none(), "each is taken once");
    }

    #[test]
    fn a_node_whose_session_ends_is_not_waited_for() {
        let openings = Openings::default();
        let mut answer = waiting(&openings, "a", 1);
        openings.end_session(2);
        assert!(matches!(
            answer.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        ));
        openings.end_session(1);
        assert!(matches!(
            answer.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        ));
    }
}
