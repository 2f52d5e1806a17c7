//! Streams for clients of the API: a server asks over its session, the agent dials back and joins the two ends.
//!
//! Each stream has a connection of its own to the server that asked: a client that does not read holds back only
//! itself, never a session's heartbeats.

mod blob;
mod gone;
mod port_forward;
mod process;

use std::sync::Arc;
use std::time::Duration;

use flotilla_api::{Reason, Status};
use flotilla_proto::node::nodes_client::NodesClient;
use flotilla_proto::node::{OpenStream, StreamFrame};
use flotilla_report::report;
use flotilla_runtime::logs::LogReader;
use flotilla_tunnel::{Ends, request};
use futures::future::BoxFuture;
use futures::{StreamExt as _, stream};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;

use crate::identity::Connector;
use crate::pods::{PodView, Pods};
use crate::worker::Surroundings;
use blob::Blob;
use process::Process;

/// Streams of one node at once; each holds a connection and up to a megabyte.
const STREAMS_MAX: usize = 1024;
/// How long a server may take to end its half of a stream whose work is done.
const END_LIMIT: Duration = Duration::from_secs(10);

/// What a stream works on, once it is certain that it can.
enum Begun {
    PortForward(TcpStream),
    Process(Process),
    GonePods(Vec<u8>),
    GoneLog(LogReader),
    Blob(Blob),
}

impl Begun {
    fn run(self, ends: Ends) -> BoxFuture<'static, ()> {
        match self {
            Self::PortForward(connection) => Box::pin(port_forward::run(connection, ends)),
            Self::Process(process) => Box::pin(process::run(process, ends)),
            Self::GonePods(json) => Box::pin(gone::run_list(json, ends)),
            Self::GoneLog(reader) => Box::pin(gone::run_log(reader, ends)),
            Self::Blob(blob) => Box::pin(blob::run(blob, ends)),
        }
    }
}

/// Opens streams and keeps them going.
pub(crate) struct Streams {
    connectors: watch::Receiver<Connector>,
    surroundings: Arc<Surroundings>,
    pods: Arc<Pods>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    places: Arc<Semaphore>,
}

impl Streams {
    pub(crate) fn new(
        connectors: watch::Receiver<Connector>,
        surroundings: Arc<Surroundings>,
        pods: Arc<Pods>,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(STREAMS_MAX));
        Arc::new(Self {
            connectors,
            surroundings,
            pods,
            tracker,
            shutdown,
            places,
        })
    }

    /// Does what the server at `address` asks for.
    pub(crate) fn open(self: &Arc<Self>, address: &str, wanted: OpenStream) {
        let (streams, address) = (self.clone(), address.to_owned());
        self.tracker.spawn(async move {
            let shutdown = streams.shutdown.clone();
            // Dropping a stream ends it at both sides.
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = streams.serve(&address, wanted) => {}
            }
        });
    }

    async fn serve(&self, address: &str, wanted: OpenStream) {
        let place = self.places.try_acquire();
        let (ends, far) = flotilla_tunnel::pair();
        let (opening, opened) = oneshot::channel();
        let first = stream::once(opened).filter_map(|first| std::future::ready(first.ok()));
        let rest = ReceiverStream::new(far.incoming).map(flotilla_tunnel::to_wire);
        let channel = (self.connectors.borrow().clone())(address);
        let mut client = NodesClient::new(channel);
        let begin = async {
            let begun = match &place {
                Ok(_) => self.begin(&wanted).await,
                Err(_) => Err(Status::new(
                    Reason::TooManyRequests,
                    format!("the node has {STREAMS_MAX} streams open already"),
                )),
            };
            let message = flotilla_tunnel::opening(wanted.stream_id.clone(), begun.as_ref().err());
            // Fails only if the call has, which is told by the call itself.
            let _ = opening.send(message);
            begun
        };
        let (answer, begun) = tokio::join!(client.stream(first.chain(rest)), begin);
        match (answer, begun) {
            (Ok(answer), Ok(begun)) => {
                let receive = receive(answer.into_inner(), far.outgoing);
                tokio::join!(begun.run(ends), receive);
            }
            (_, Err(refusal)) => {
                tracing::debug!(
                    kind = wanted.kind,
                    error = report(&refusal),
                    "a stream was refused"
                );
            }
            (Err(error), Ok(_)) => {
                tracing::info!(
                    server = address,
                    error = error.message(),
                    "a stream could not be opened"
                );
            }
        }
    }

    async fn begin(&self, wanted: &OpenStream) -> Result<Begun, Status> {
        let json = &wanted.request_json;
        match wanted.kind.as_str() {
            request::PORT_FORWARD => port_forward::begin(self, &read(json)?)
                .await
                .map(Begun::PortForward),
            request::EXEC => process::begin_exec(self, read(json)?).await.map(Begun::Process),
            request::ATTACH => process::begin_attach(self, read(json)?).await.map(Begun::Process),
            request::GONE_PODS => gone::begin_list(self, &read(json)?).map(Begun::GonePods),
            request::GONE_LOG => gone::begin_log(self, read(json)?).await.map(Begun::GoneLog),
            request::BLOB => blob::begin(self, read(json)?).await.map(Begun::Blob),
            other => Err(Status::bad_request(format!(
                "this agent does not know streams of the kind {other:?}: it is older than the server"
            ))),
        }
    }

    /// The uid under which the pod runs here, which for a static pod is not that of its mirror, and what it is.
    fn find(&self, target: &request::Target) -> Result<(String, PodView), Status> {
        let found = self.pods.view(&target.uid).map(|view| view.borrow().clone());
        let found = found.and_then(|view| Some((view.pod.metadata.uid.clone()?, view)));
        found.ok_or_else(|| {
            Status::new(
                Reason::NotFound,
                format!("pod \"{}\" is not on this node", target.pod),
            )
        })
    }
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(json)
        .map_err(|error| Status::bad_request(format!("the server's request cannot be read: {error}")))
}

/// Hands on what the server sends. Goes on reading to the end, because giving up earlier would cut off what is still
/// on its way to the server.
async fn receive(
    mut incoming: Streaming<StreamFrame>,
    outgoing: tokio::sync::mpsc::Sender<flotilla_tunnel::Frame>,
) {
    loop {
        // Dropping a read that is not finished loses a frame only when nobody wants it any more.
        let message = tokio::select! {
            message = incoming.message() => message,
            () = outgoing.closed() => break,
        };
        let Ok(Some(message)) = message else { return };
        let frame = flotilla_tunnel::from_wire(message);
        if let Some(frame) = frame
            && outgoing.send(frame).await.is_err()
        {
            break;
        }
    }
    let rest = async { while let Ok(Some(_)) = incoming.message().await {} };
    // A server that does not end its half is given up.
    let _ = tokio::time::timeout(END_LIMIT, rest).await;
}
