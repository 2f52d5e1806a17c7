//! `pods/exec`, `pods/attach`, `pods/portforward`: requests that turn their connection into streams.
//!
//! The node is asked first, so that what cannot be done is refused with a `Status`; then the connection is upgraded,
//! to WebSockets or to SPDY/3.1 as the client wants it, and joined with what the node opened. What a message or a
//! stream of the client means is decided in the module of its protocol; all of them speak to the node in frames.

mod forward;
mod forward_spdy;
mod forward_websocket;
mod messages;
mod negotiate;
mod options;
mod outcome;
mod remote_spdy;
mod remote_websocket;
mod sizes;
mod tunnelled;

use async_trait::async_trait;
use bytes::Bytes;
use flotilla_api::Status;
use flotilla_report::report;
use flotilla_tunnel::Ends;
use flotilla_tunnel::request::{ATTACH, AttachRequest, EXEC, ExecRequest, Streams};
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use tracing::Instrument as _;

use crate::body::Body;
use crate::call::Call;
use crate::server::ApiServer;
use crate::subresources;
use crate::write::Place;
use forward::Forwarder;
use negotiate::{Protocol, Transport};

/// Opens streams to nodes, wherever those are.
#[async_trait]
pub trait NodeStreams: Send + Sync {
    /// The nodes that have a connection to this server now.
    fn nodes(&self) -> Vec<String>;
    /// A stream of one of [`flotilla_tunnel::request`]'s kinds. The node has begun what was asked when this returns.
    async fn open(&self, node: &str, kind: &str, request_json: Bytes) -> Result<Ends, Status>;
}

/// A client's connection once it is upgraded.
type Connection = TokioIo<Upgraded>;

/// Answers a request for one of these subresources.
pub(crate) async fn respond(
    server: &ApiServer,
    call: &mut Call,
    place: Place<'_>,
    subresource: &str,
) -> Result<Response<Body>, Status> {
    let pod = subresources::pod(server, place).await?;
    match subresource {
        "portforward" => forward(server, call, &pod),
        _ => remote(server, call, &pod, subresource).await,
    }
}

/// `exec` and `attach`: one process's input and output.
async fn remote(
    server: &ApiServer,
    call: &mut Call,
    pod: &Pod,
    subresource: &str,
) -> Result<Response<Body>, Status> {
    let wanted = options::remote(pod, &call.query)?;
    let node = options::node(pod)?;
    let (kind, request) = match subresource {
        "exec" => (EXEC, exec_request(pod, &wanted, &call.query)?),
        _ => (ATTACH, attach_request(pod, &wanted)?),
    };
    let transport = negotiate::negotiate(&call.headers, &negotiate::REMOTE)?;
    let upgrade = upgrade(call)?;
    let ends = server.streams().open(node, kind, request).await?;
    let response = switching(&transport)?;
    let streams = wanted.streams;
    serve(server, upgrade, move |connection| {
        Box::pin(run_remote(connection, transport, streams, ends))
    });
    Ok(response)
}

async fn run_remote(connection: Connection, transport: Transport, streams: Streams, ends: Ends) {
    match transport.protocol {
        Protocol::Channels(channels) => remote_websocket::run(connection, channels, &streams, ends).await,
        Protocol::Spdy(version) => remote_spdy::run(connection, version, &streams, ends).await,
        Protocol::TunnelledSpdy => unreachable!("it is not offered for commands"),
    }
}

/// `portforward`: any number of connections to ports of the pod.
fn forward(server: &ApiServer, call: &mut Call, pod: &Pod) -> Result<Response<Body>, Status> {
    let transport = negotiate::negotiate(&call.headers, &negotiate::PORT_FORWARD)?;
    let ports = match transport.protocol {
        Protocol::Channels(_) => options::ports(&call.query)?,
        _ => Vec::new(),
    };
    let forwarder = Forwarder::new(server.streams().clone(), pod, options::node(pod)?);
    let upgrade = upgrade(call)?;
    let response = switching(&transport)?;
    serve(server, upgrade, move |connection| {
        Box::pin(async move {
            match transport.protocol {
                Protocol::Channels(channels) => {
                    forward_websocket::run(connection, channels, &ports, &forwarder).await;
                }
                Protocol::Spdy(_) => forward_spdy::run(connection, &forwarder).await,
                Protocol::TunnelledSpdy => {
                    forward_spdy::run(tunnelled::transport(connection).await, &forwarder).await;
                }
            }
        })
    });
    Ok(response)
}

fn exec_request(pod: &Pod, wanted: &options::Remote, query: &crate::query::Query) -> Result<Bytes, Status> {
    json(&ExecRequest {
        target: options::target(pod),
        container: wanted.container.clone(),
        command: options::command(query)?,
        streams: wanted.streams.clone(),
    })
}

fn attach_request(pod: &Pod, wanted: &options::Remote) -> Result<Bytes, Status> {
    json(&AttachRequest {
        target: options::target(pod),
        container: wanted.container.clone(),
        streams: wanted.streams.clone(),
    })
}

fn json(request: &impl Serialize) -> Result<Bytes, Status> {
    serde_json::to_vec(request)
        .map(Bytes::from)
        .map_err(Status::internal)
}

/// The right to the connection, which only HTTP/1.1 gives.
fn upgrade(call: &mut Call) -> Result<OnUpgrade, Status> {
    call.upgrade.take().ok_or_else(|| {
        Status::bad_request("Upgrade request required: only HTTP/1.1 connections can be upgraded")
    })
}

fn switching(transport: &Transport) -> Result<Response<Body>, Status> {
    let mut response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in transport.headers() {
        response = response.header(name, value);
    }
    response.body(Body::empty()).map_err(Status::internal)
}

/// Runs `work` with the connection once the client has read the answer; it ends when the server drains.
fn serve(
    server: &ApiServer,
    upgrade: OnUpgrade,
    work: impl FnOnce(Connection) -> BoxFuture<'static, ()> + Send + 'static,
) {
    let drain = server.drain().clone();
    let serving = async move {
        let connection = match upgrade.await {
            Ok(connection) => TokioIo::new(connection),
            Err(error) => {
                return tracing::debug!(error = report(&error), "a connection could not be upgraded");
            }
        };
        // Dropping a stream tells both of its ends.
        tokio::select! {
            () = drain.cancelled() => {}
            () = work(connection) => {}
        }
    };
    server.upgraded().spawn(serving.in_current_span());
}
