//! One connection of a client: TLS, HTTP/1.1 or HTTP/2, and its end.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use flotilla_report::report;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity::{Activity, Watched};
use crate::forward::{Forwarder, Tasks};
use crate::headers::Scheme;
use crate::limits::Limits;

/// A client that does not finish its handshake by then is no client.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// As much of a request's head as other proxies take.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection, as many as browsers ask for.
const STREAMS_MAX: u32 = 128;

/// Who is at the other end, for as long as the connection or a tunnel made of it lasts.
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    pub(crate) scheme: Scheme,
    pub(crate) limits: Limits,
    activity: Activity,
    stopping: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl Caller {
    pub(crate) fn new(
        peer: SocketAddr,
        scheme: Scheme,
        limits: Limits,
        stopping: CancellationToken,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            // An IPv4 client of a dual-stack socket.
            address: peer.ip().to_canonical(),
            scheme,
            limits,
            activity: Activity::new(),
            stopping,
            _slot: slot,
        }
    }

    /// Ends some time after the proxy was told to stop.
    pub(crate) async fn drained(&self) {
        self.stopping.cancelled().await;
        tokio::time::sleep(self.limits.drain).await;
    }

    /// Ends once no byte has moved for too long.
    pub(crate) async fn silent(&self) {
        self.activity.ceased(self.limits.idle).await;
    }
}

/// What all connections of a listener share.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) forwarder: Forwarder,
    pub(crate) tracker: TaskTracker,
    /// For HTTPS.
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

impl Service {
    /// Talks with a client until it goes, is silent for too long, or the proxy stops.
    pub(crate) async fn converse(self, stream: TcpStream, caller: Caller) {
        // Without these the connection is slower, or a dead client is found later; no reason to refuse it.
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let caller = Arc::new(caller);
        let stream = Watched::new(stream, caller.activity.clone());
        let Some(config) = self.tls.clone() else {
            return self.http1(stream, &caller).await;
        };
        let accepting = TlsAcceptor::from(config).accept(stream);
        let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(client = %caller.address, error = report(&error), "a TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => self.http2(stream, &caller).await,
            _ => self.http1(stream, &caller).await,
        }
    }

    async fn http1(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, caller: &Arc<Caller>) {
        let (forwarder, asking) = (self.forwarder, caller.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (forwarder, caller) = (forwarder.clone(), asking.clone());
            async move { Ok::<_, Infallible>(forwarder.answer(&caller, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(caller.limits.head)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        drive(connection, caller, |connection| connection.graceful_shutdown()).await;
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, caller: &Arc<Caller>) {
        let (forwarder, asking) = (self.forwarder, caller.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (forwarder, caller) = (forwarder.clone(), asking.clone());
            async move { Ok::<_, Infallible>(forwarder.answer(&caller, request).await) }
        });
        let connection = http2::Builder::new(Tasks(self.tracker))
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .serve_connection(TokioIo::new(stream), service);
        drive(connection, caller, |connection| connection.graceful_shutdown()).await;
    }
}

/// Runs a connection to its end; when the proxy stops it takes no more requests and ends once the last is answered.
async fn drive<C>(connection: C, caller: &Caller, finish: impl Fn(Pin<&mut C>))
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut drained = pin!(caller.drained());
    let mut idle = pin!(caller.silent());
    let mut is_finishing = false;
    loop {
        // Dropping the connection, which all other arms lead to, closes it.
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(client = %caller.address, error = report(&error), "a connection broke");
                }
                return;
            }
            () = caller.stopping.cancelled(), if !is_finishing => {
                is_finishing = true;
                finish(connection.as_mut());
            }
            () = &mut drained => return,
            () = &mut idle => return,
        }
    }
}
