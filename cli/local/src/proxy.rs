//! Forwards connections to whichever server accepts them.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server on the same machine answers within microseconds, or does not.
const CONNECT_LIMIT: Duration = Duration::from_millis(300);

/// The servers, and which of them accepted last.
pub(crate) struct Proxy {
    servers: Vec<SocketAddr>,
    last: AtomicUsize,
}

impl Proxy {
    pub(crate) fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            last: AtomicUsize::new(0),
        }
    }

    /// Passes bytes in both directions until both sides are done.
    pub(crate) async fn forward(&self, mut client: TcpStream) -> io::Result<()> {
        let mut server = self.connect().await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        copy_bidirectional(&mut client, &mut server).await?;
        Ok(())
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let last = self.last.load(Ordering::Relaxed);
        let mut refused = io::Error::other("there are no servers");
        for at in (last..self.servers.len()).chain(0..last) {
            match timeout(CONNECT_LIMIT, TcpStream::connect(self.servers[at])).await {
                Ok(Ok(server)) => {
                    self.last.store(at, Ordering::Relaxed);
                    return Ok(server);
                }
                Ok(Err(error)) => refused = error,
                Err(_) => refused = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(refused)
    }
}
