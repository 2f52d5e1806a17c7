//! HTTP/2 connections that are the same for both stores: requests ready-made, answers counted and not decoded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flotilla_pki::ClientTls;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::plan::{Server, System};

/// Large enough that no answer waits for the client to open its window.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// The body of a request: one piece, after which the stream may stay open.
pub(super) struct Piece {
    pub(super) bytes: Option<Bytes>,
    pub(super) stays_open: bool,
}

impl Body for Piece {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.stays_open => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && !self.stays_open
    }

    /// Known, so that requests say how long they are: a server makes room for the largest body otherwise.
    fn size_hint(&self) -> SizeHint {
        match self.stays_open {
            true => SizeHint::default(),
            false => SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}

/// A connection that many clients may share. A clone is a handle.
#[derive(Clone)]
pub(super) struct Connection(http2::SendRequest<Piece>);

impl Connection {
    /// Connects to a server as its system wants it.
    pub(super) async fn open(system: &System, server: &Server, tasks: &TaskTracker) -> Connection {
        match &system.identity {
            None => shake_hands(plain(server.address).await, tasks).await,
            Some(identity) => {
                let tls = ClientTls::with_identity(identity).expect("the identity is whole");
                let stream = tls.connect(&server.address.to_string()).await;
                shake_hands(stream.expect("the server accepts connections"), tasks).await
            }
        }
    }

    /// Sends a request and reads the whole answer, which must be good; how many bytes it had.
    pub(super) async fn ask(&self, request: Request<Piece>) -> usize {
        let mut body = self.begin(request).await;
        let mut count = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.expect("answers are not cut off");
            count += frame.data_ref().map_or(0, Bytes::len);
            check_rpc(frame.trailers_ref());
        }
        count
    }

    /// The first piece of an answer.
    pub(super) async fn first_piece(&self, request: Request<Piece>) -> Bytes {
        let mut body = self.begin(request).await;
        let frame = body.frame().await.expect("the answer has a body");
        let frame = frame.expect("answers are not cut off");
        frame.into_data().expect("data come before trailers")
    }

    /// Sends a request; the body of an answer that begins well.
    pub(super) async fn begin(&self, request: Request<Piece>) -> Incoming {
        let mut sender = self.0.clone();
        sender.ready().await.expect("the connection is open");
        let answer = sender.send_request(request).await.expect("the server answers");
        let (parts, body) = answer.into_parts();
        assert!(parts.status.is_success(), "the server answered {}", parts.status);
        check_rpc(Some(&parts.headers));
        body
    }
}

/// gRPC tells of failures in headers or trailers.
fn check_rpc(headers: Option<&HeaderMap>) {
    if let Some(code) = headers.and_then(|headers| headers.get("grpc-status")) {
        let message = headers.and_then(|headers| headers.get("grpc-message"));
        assert!(code == "0", "the call failed: {code:?} {message:?}");
    }
}

async fn plain(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address)
        .await
        .expect("the server accepts connections");
    stream.set_nodelay(true).expect("the socket takes options");
    stream
}

async fn shake_hands<S>(stream: S, tasks: &TaskTracker) -> Connection
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .expect("the server speaks HTTP/2");
    tasks.spawn(async move {
        // It ends with the measurement; a request on it tells what went wrong before.
        let _ = connection.await;
    });
    Connection(sender)
}
