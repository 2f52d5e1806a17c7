//! `portforward` over SPDY: for each connection a stream for its data and one for what went wrong.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_report::report;
use flotilla_spdy::{Incoming, NewStreams, Receiver, Sender};
use flotilla_tunnel::copy::send;
use flotilla_tunnel::request::CONNECTION;
use flotilla_tunnel::{Ends, Frame};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};

use super::forward::Forwarder;

/// A stream whose partner does not come within this time is given up, as Kubernetes does.
const PARTNER_LIMIT: Duration = Duration::from_secs(30);
/// Connections of which only one stream has come.
const HALVES_MAX: usize = 256;

/// Serves a client's connections until it hangs up.
pub(super) async fn run(transport: impl AsyncRead + AsyncWrite, forwarder: &Forwarder) {
    let served = flotilla_spdy::serve(transport, |new_streams| connections(new_streams, forwarder)).await;
    if let Err(error) = served {
        tracing::debug!(error = report(&error), "a client's SPDY connection broke");
    }
}

async fn connections(mut new_streams: NewStreams, forwarder: &Forwarder) {
    let mut halves = Halves::default();
    let mut open = FuturesUnordered::new();
    let mut is_accepting = true;
    while is_accepting || !open.is_empty() {
        // Both arms are cancel safe: a stream that came is not lost, and connections go on.
        tokio::select! {
            incoming = new_streams.next(), if is_accepting => match incoming {
                Some(incoming) => {
                    if let Some(whole) = halves.add(incoming) {
                        open.push(carry(whole, forwarder));
                    }
                }
                None => is_accepting = false,
            },
            Some(()) = open.next() => {}
        }
    }
}

/// Both streams of one connection.
struct Whole {
    port: u16,
    data: (Sender, Receiver),
    error: Sender,
}

/// Streams that wait for their partner, by the number of their connection.
#[derive(Default)]
struct Halves {
    waiting: HashMap<String, Half>,
}

struct Half {
    label: Label,
    stream: (Sender, Receiver),
    since: Instant,
}

impl Halves {
    /// Takes a stream; returns the connection if its partner is there.
    ///
    /// The stream is answered at once: clients wait for that before they open its partner.
    fn add(&mut self, incoming: Incoming) -> Option<Whole> {
        self.waiting
            .retain(|_, half| half.since.elapsed() < PARTNER_LIMIT);
        let Some(label) = Label::of(&incoming) else {
            incoming.refuse();
            return None;
        };
        let Some(partner) = self.waiting.remove(&label.connection) else {
            match self.waiting.len() < HALVES_MAX {
                true => self.wait(label, incoming.accept()),
                false => incoming.refuse(),
            }
            return None;
        };
        if partner.label.is_data == label.is_data || partner.label.port != label.port {
            incoming.refuse();
            self.waiting.insert(label.connection, partner);
            return None;
        }
        let (port, stream) = (label.port, incoming.accept());
        let (data, (error, _)) = match label.is_data {
            true => (stream, partner.stream),
            false => (partner.stream, stream),
        };
        Some(Whole { port, data, error })
    }

    fn wait(&mut self, label: Label, stream: (Sender, Receiver)) {
        let (connection, since) = (label.connection.clone(), Instant::now());
        self.waiting.insert(connection, Half { label, stream, since });
    }
}

/// What a stream's headers say.
struct Label {
    connection: String,
    is_data: bool,
    port: u16,
}

impl Label {
    fn of(incoming: &Incoming) -> Option<Self> {
        let headers = incoming.headers();
        let is_data = match headers.get("streamtype")? {
            "data" => true,
            "error" => false,
            _ => return None,
        };
        let port = headers.get("port")?.parse().ok().filter(|port| *port != 0)?;
        let connection = match headers.get("requestid") {
            Some(id) => id.to_owned(),
            // The oldest clients give no number; they open the error stream first and the other right after it.
            None => (incoming.id() - if is_data { 2 } else { 0 }).to_string(),
        };
        Some(Self {
            connection,
            is_data,
            port,
        })
    }
}

async fn carry(whole: Whole, forwarder: &Forwarder) {
    let Whole {
        port,
        data: (sender, receiver),
        mut error,
    } = whole;
    let failure = match forwarder.connect(port).await {
        Ok(ends) => match copy(sender, receiver, ends).await {
            Copied::Whole | Copied::ClientGone => None,
            Copied::PodGone => Some(forwarder.lost(port)),
        },
        Err(status) => {
            sender.reset();
            Some(status.message)
        }
    };
    if let Some(message) = failure {
        tracing::debug!(port, message, "a connection was not forwarded");
        // The client may have gone first.
        let _ = error.send(message.into()).await;
    }
    let _ = error.finish().await;
}

enum Copied {
    Whole,
    ClientGone,
    PodGone,
}

async fn copy(mut sender: Sender, mut receiver: Receiver, ends: Ends) -> Copied {
    let Ends {
        outgoing,
        mut incoming,
    } = ends;
    let up = async {
        loop {
            let data: Option<Bytes> = receiver.recv().await.map_err(|_| Copied::ClientGone)?;
            match data {
                Some(data) => send(&outgoing, CONNECTION, data)
                    .await
                    .map_err(|_| Copied::PodGone)?,
                None => {
                    // A pod that has closed its side already needs not be told.
                    let _ = outgoing.send(Frame::close(CONNECTION)).await;
                    return Ok(());
                }
            }
        }
    };
    let down = async {
        loop {
            let frame = incoming.recv().await.ok_or(Copied::PodGone)?;
            sender.send(frame.data).await.map_err(|_| Copied::ClientGone)?;
            if frame.close {
                return sender.finish().await.map_err(|_| Copied::ClientGone);
            }
        }
    };
    match tokio::try_join!(up, down) {
        Ok(((), ())) => Copied::Whole,
        Err(copied) => copied,
    }
}
