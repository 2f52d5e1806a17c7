//! The one port: TLS, then HTTP/1.1 or HTTP/2, then gRPC or the REST API by content type.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::body::Body;
use flotilla_apiserver::{ApiServer, Peer, User};
use flotilla_pki::{GROUP_SERVERS, PeerIdentity};
use flotilla_report::report;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// A client that does not finish its handshake in this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that asks nothing in this time is dropped: before its first request, nothing else watches over it.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection whose other end does not answer pings goes after these two together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that takes nothing of what is sent to it in this time is dropped: HTTP/1 has no pings that would tell. A watcher
/// that is only slow stays, and is told once it has fallen behind; a log that somebody reads page by page waits as long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// After a failure to accept (mostly: no descriptors left), a pause lets connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests of one connection at once; a Kubernetes client holds many watches on one.
const STREAMS_MAX: u32 = 1000;

/// What connections are served with. A clone is a handle.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) grpc: axum::Router,
    pub(crate) api: ApiServer,
}

/// Accepts connections until shutdown, then lets those that are open finish.
pub(crate) async fn listen(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    services: Services,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let acceptor = TlsAcceptor::from(tls);
    loop {
        // Dropping accept loses no connection: it stays in the kernel's queue.
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let (acceptor, services, shutdown) = (acceptor.clone(), services.clone(), shutdown.clone());
                connections
                    .spawn(async move { connection(stream, remote, acceptor, services, shutdown).await });
            }
            Err(error) => {
                tracing::warn!(error = report(&error), "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    remote: SocketAddr,
    acceptor: TlsAcceptor,
    services: Services,
    shutdown: CancellationToken,
) {
    // Without it small answers wait for acknowledgements; a socket that refuses is as good as closed.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(impatient(stream))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%remote, error = report(&error), "a TLS handshake failed"),
        Err(_) => return tracing::debug!(%remote, "a TLS handshake took too long"),
    };
    let caller = Caller {
        identity: identity_of(&stream),
        remote,
    };
    let has_asked = CancellationToken::new();
    let asks = has_asked.clone();
    let service = service_fn(move |request| {
        asks.cancel();
        let (services, caller) = (services.clone(), caller.clone());
        async move { Ok::<_, Infallible>(respond(services, caller, request).await) }
    });
    let builder = builder();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // The connection is polled on after the shutdown until its requests are answered.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silence(&has_asked) => return tracing::debug!(%remote, "a client asked nothing"),
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%remote, error = report(&*error), "a connection ended with an error");
    }
}

/// A stream whose writes fail when the other end takes nothing for long.
fn impatient<S: AsyncRead + AsyncWrite>(stream: S) -> Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    Box::pin(stream)
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder.http1().timer(TokioTimer::new());
    builder
}

/// Ends when the first request is overdue; never, once it has come.
async fn silence(has_asked: &CancellationToken) {
    let asked = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, has_asked.cancelled()).await;
    if asked.is_ok() {
        std::future::pending().await
    }
}

/// Who is at the other end, as TLS has verified.
#[derive(Clone)]
struct Caller {
    identity: Option<PeerIdentity>,
    remote: SocketAddr,
}

fn identity_of<S>(stream: &TlsStream<S>) -> Option<PeerIdentity> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    PeerIdentity::of(certificate).ok()
}

async fn respond(services: Services, caller: Caller, request: Request<Incoming>) -> Response<Body> {
    let content_type = request.headers().get(CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return respond_grpc(services.grpc, caller, request).await;
    }
    let user = caller.identity.map(|identity| User {
        name: identity.common_name,
        groups: identity.organizations,
    });
    let peer = Peer {
        user,
        remote: caller.remote,
    };
    api_answer(services.api, request, peer).await.map(Body::new)
}

/// Boxed, because the compiler cannot see through the borrows inside that the future may change threads.
fn api_answer(
    api: ApiServer,
    request: Request<Incoming>,
    peer: Peer,
) -> BoxFuture<'static, Response<flotilla_apiserver::Body>> {
    Box::pin(async move { api.handle(request, peer).await })
}

async fn respond_grpc(
    router: axum::Router,
    caller: Caller,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let is_server = caller
        .identity
        .as_ref()
        .is_some_and(|peer| peer.organizations.iter().any(|group| group == GROUP_SERVERS));
    if request.uri().path().starts_with("/flotilla.peer.") && !is_server {
        return grpc_refusal("only a server of the cluster may call its peers");
    }
    if let Some(identity) = caller.identity {
        request.extensions_mut().insert(identity);
    }
    match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn grpc_refusal(message: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    headers.insert(
        "grpc-status",
        http::HeaderValue::from(tonic::Code::PermissionDenied as i32),
    );
    headers.insert("grpc-message", http::HeaderValue::from_static(message));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_dropped() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = impatient(ours);
        ours.write_all(&[0; 64]).await.unwrap();
        let mut taken = [0; 64];
        theirs.read_exact(&mut taken).await.unwrap();
        let stuck = ours.write_all(&[0; 65]).await.unwrap_err();
        assert_eq!(stuck.kind(), std::io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_nothing_is_dropped() {
        silence(&CancellationToken::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_asked_may_be_silent() {
        let has_asked = CancellationToken::new();
        has_asked.cancel();
        let long = FIRST_REQUEST_TIMEOUT * 100;
        assert!(tokio::time::timeout(long, silence(&has_asked)).await.is_err());
    }
}
