//! Options → bind → run → drain.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use flotilla_report::report;
use hickory_proto::op::{Message, MessageType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::encode;
use crate::records::Records;
use crate::resolver::Resolver;
use crate::upstreams::Upstreams;

/// Questions that upstream is asked at a time: each holds a socket. Clients ask again.
const PENDING_MAX: usize = 256;
/// Connections at a time; few clients need any.
const STREAMS_MAX: usize = 128;
/// How long a connection may be silent.
const STREAM_IDLE: Duration = Duration::from_secs(10);
/// After an error that concerns nobody in particular, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Where names are answered.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address and port that pods ask.
    pub listen: SocketAddr,
    /// The node's resolver configuration, which names who is asked for other names.
    pub resolver_file: PathBuf,
}

/// Answers on one address over UDP and TCP.
pub struct Server {
    datagrams: Arc<UdpSocket>,
    streams: TcpListener,
    resolver: Arc<Resolver>,
}

impl Server {
    /// Takes the address, which must be the node's by now.
    pub async fn bind(options: Options, records: Arc<RwLock<Records>>) -> io::Result<Self> {
        let streams = TcpListener::bind(options.listen).await?;
        let listen = streams.local_addr()?;
        let datagrams = Arc::new(UdpSocket::bind(listen).await?);
        let upstreams = Upstreams::new(options.resolver_file, listen);
        let resolver = Arc::new(Resolver::new(records, upstreams));
        Ok(Self {
            datagrams,
            streams,
            resolver,
        })
    }

    /// Where it answers.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.streams.local_addr()
    }

    /// Answers until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let tracker = TaskTracker::new();
        let datagrams = self.answer_datagrams(&tracker);
        let streams = self.answer_streams(&tracker, &shutdown);
        // Dropping the loops loses packets that clients send again, and connections nobody has answered yet.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = datagrams => {}
            () = streams => {}
        }
        tracker.close();
        tracker.wait().await;
    }

    async fn answer_datagrams(&self, tracker: &TaskTracker) {
        let pending = Arc::new(Semaphore::new(PENDING_MAX));
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let (length, client) = match self.datagrams.recv_from(&mut buffer).await {
                Ok(received) => received,
                // What an earlier answer met, such as a client that is gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => {
                    tracing::warn!(error = report(&error), "questions cannot be received");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(query) = query_in(&buffer[..length]) else {
                continue;
            };
            let later = match self.resolver.answer_at_once(&query) {
                Ok(response) => {
                    send(&self.datagrams, client, &query, &response).await;
                    continue;
                }
                Err(later) => later,
            };
            let Ok(permit) = pending.clone().try_acquire_owned() else {
                send(&self.datagrams, client, &query, &later.failed()).await;
                continue;
            };
            let (socket, resolver) = (self.datagrams.clone(), self.resolver.clone());
            tracker.spawn(async move {
                let response = resolver.answer(later).await;
                send(&socket, client, &query, &response).await;
                drop(permit);
            });
        }
    }

    async fn answer_streams(&self, tracker: &TaskTracker, shutdown: &CancellationToken) {
        let room = Arc::new(Semaphore::new(STREAMS_MAX));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            match self.streams.accept().await {
                Ok((stream, _)) => {
                    let (resolver, shutdown) = (self.resolver.clone(), shutdown.clone());
                    tracker.spawn(async move {
                        // A client whose connection ends asks again.
                        tokio::select! {
                            () = shutdown.cancelled() => {}
                            ended = converse(stream, &resolver) => if let Err(error) = ended {
                                tracing::debug!(error = report(&error), "a connection ended early");
                            }
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(error = report(&error), "connections cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// What a packet asks; none for noise, which gets no answer.
fn query_in(bytes: &[u8]) -> Option<Message> {
    match Message::from_vec(bytes) {
        Ok(message) if message.metadata.message_type == MessageType::Query => Some(message),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(error = report(&error), "a question is malformed");
            None
        }
    }
}

async fn send(socket: &UdpSocket, client: SocketAddr, query: &Message, response: &Message) {
    let Some(bytes) = encode(query, response, true) else {
        tracing::debug!("an answer cannot be written down");
        return;
    };
    if let Err(error) = socket.send_to(&bytes, client).await {
        tracing::debug!(client = %client, error = report(&error), "an answer cannot be sent");
    }
}

/// Answers the questions of a connection, in turn.
async fn converse(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    loop {
        let length = match timeout(STREAM_IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => length,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let mut bytes = vec![0; length.into()];
        timeout(STREAM_IDLE, stream.read_exact(&mut bytes)).await??;
        let Some(query) = query_in(&bytes) else {
            return Ok(());
        };
        let response = match resolver.answer_at_once(&query) {
            Ok(response) => response,
            Err(later) => resolver.answer(later).await,
        };
        let Some(answer) = encode(&query, &response, false) else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let whole = [&length.to_be_bytes()[..], &answer].concat();
        timeout(STREAM_IDLE, stream.write_all(&whole)).await??;
    }
}

#[cfg(test)]
mod tests;
