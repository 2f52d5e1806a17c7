//! Forwards connections to whichever server answers them.
//!
//! That a server accepts a connection says little: the kernel does it for a frozen process as well. So the client's
//! first message is kept and offered to one server after the other until one replies.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server on the same machine answers within microseconds, or does not.
const CONNECT_LIMIT: Duration = Duration::from_millis(300);
/// A busy one needs longer for the first message of TLS.
const REPLY_LIMIT: Duration = Duration::from_secs(1);
/// Type and length of a TLS record; a record's content has at most 16 KiB and a little.
const RECORD_HEADER: usize = 5;
const HANDSHAKE: u8 = 22;

/// The servers, and which of them answered last.
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
        client.set_nodelay(true)?;
        let hello = read_hello(&mut client).await?;
        let (mut server, reply) = self.ask(&hello).await?;
        client.write_all(&reply).await?;
        copy_bidirectional(&mut client, &mut server).await?;
        Ok(())
    }

    /// The first server that replies, beginning with the one that did so last, and its reply.
    async fn ask(&self, hello: &[u8]) -> io::Result<(TcpStream, Vec<u8>)> {
        let last = self.last.load(Ordering::Relaxed);
        let mut failure = io::Error::other("there are no servers");
        for at in (last..self.servers.len()).chain(0..last) {
            match ask_one(self.servers[at], hello).await {
                Ok(answered) => {
                    self.last.store(at, Ordering::Relaxed);
                    return Ok(answered);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

async fn ask_one(server: SocketAddr, hello: &[u8]) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut server = timeout(CONNECT_LIMIT, TcpStream::connect(server)).await??;
    server.set_nodelay(true)?;
    server.write_all(hello).await?;
    let mut reply = vec![0; 4096];
    let count = timeout(REPLY_LIMIT, server.read(&mut reply)).await??;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    reply.truncate(count);
    Ok((server, reply))
}

/// The client's first TLS record, which the server must have whole before it replies.
async fn read_hello(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut hello = vec![0; RECORD_HEADER];
    client.read_exact(&mut hello).await?;
    if hello[0] != HANDSHAKE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the client does not speak TLS",
        ));
    }
    let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
    hello.resize(RECORD_HEADER + length, 0);
    client.read_exact(&mut hello[RECORD_HEADER..]).await?;
    Ok(hello)
}
