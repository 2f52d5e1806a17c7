//! Listens on a port and hands connections on.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use flotilla_report::report;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Caller, Service};
use crate::headers::Scheme;
use crate::limits::Limits;

/// Connections that the kernel keeps for us.
const BACKLOG: u32 = 1024;
/// After a failure to listen, for example because somebody else has the port.
const RETRY: Duration = Duration::from_secs(2);
/// When the process has no files left for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Which ports of this node are open to clients, in the order HTTP, HTTPS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listening {
    /// For plain requests.
    pub http: Option<u16>,
    /// For TLS.
    pub https: Option<u16>,
}

/// Why a port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on port {port} for Ingresses: end what has it, or start this node's agent with another {flag} or with \
     --disable-ingress"
)]
struct ListenError {
    port: u16,
    flag: &'static str,
    source: io::Error,
}

/// One port of the proxy.
pub(crate) struct Listener {
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
    pub(crate) limits: Limits,
    pub(crate) service: Service,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) listening: watch::Sender<Listening>,
    pub(crate) tracker: TaskTracker,
}

impl Listener {
    /// Listens until it is stopped; connections get their time to drain.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        // Connections that were accepted have tasks of their own.
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.serve(&stopping) => {}
        }
        self.say(None);
    }

    async fn serve(&self, stopping: &CancellationToken) {
        let socket = self.listen().await;
        self.say(socket.local_addr().ok().map(|address| address.port()));
        loop {
            // The semaphore is never closed.
            let Ok(slot) = self.slots.clone().acquire_owned().await else {
                return;
            };
            match socket.accept().await {
                Ok((stream, peer)) => {
                    let caller = Caller::new(peer, self.scheme, self.limits, stopping.clone(), slot);
                    self.tracker.spawn(self.service.clone().converse(stream, caller));
                }
                Err(error) => {
                    tracing::warn!(
                        port = self.port,
                        error = report(&error),
                        "a connection was not accepted"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Tries until it works. The other port and everything else goes on meanwhile.
    async fn listen(&self) -> TcpListener {
        let mut known = None;
        loop {
            let error = match bind(self.port) {
                Ok(socket) => return socket,
                Err(error) => error,
            };
            let kind = error.kind();
            if known != Some(kind) {
                let error = ListenError {
                    port: self.port,
                    flag: match self.scheme {
                        Scheme::Http => "--ingress-http-port",
                        Scheme::Https => "--ingress-https-port",
                    },
                    source: error,
                };
                tracing::error!(
                    error = report(&error),
                    "Ingresses are not served on a port; trying on"
                );
                known = Some(kind);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn say(&self, port: Option<u16>) {
        self.listening.send_if_modified(|listening| {
            let own = match self.scheme {
                Scheme::Http => &mut listening.http,
                Scheme::Https => &mut listening.https,
            };
            std::mem::replace(own, port) != port
        });
    }
}

/// On all addresses, of both families where the kernel has both.
fn bind(port: u16) -> io::Result<TcpListener> {
    use io::ErrorKind::{AddrInUse, PermissionDenied};
    match bind_to((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if !matches!(error.kind(), AddrInUse | PermissionDenied) => {
            bind_to((Ipv4Addr::UNSPECIFIED, port).into())
        }
        bound => bound,
    }
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            sockopt::set_ipv6_v6only(&socket, false)?;
            socket
        }
    };
    // An agent that is started again finds connections of the last one that are not quite gone.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
