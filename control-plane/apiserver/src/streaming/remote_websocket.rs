//! `exec` and `attach` over WebSocket channels.

use bytes::Bytes;
use flotilla_report::report;
use flotilla_tunnel::copy::{Gone, send};
use flotilla_tunnel::request::{Outcome, Streams, channel};
use flotilla_tunnel::{Ends, Frame};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::messages::{Said, Socket, goodbye, hang_up, socket};
use super::negotiate::Channels;
use super::sizes::Sizes;
use super::{Connection, outcome};

/// Joins a client with a process until either ends.
pub(super) async fn run(connection: Connection, channels: Channels, streams: &Streams, ends: Ends) {
    let (sink, stream) = socket(connection).await.split();
    let Ends { outgoing, incoming } = ends;
    let mut reading = std::pin::pin!(from_client(stream, channels, outgoing));
    // A client that has gone is not waited for; the process is ended with the stream.
    let sent = tokio::select! {
        sent = to_client(sink, channels, streams, incoming) => sent,
        () = &mut reading => return,
    };
    match sent {
        Ok(()) => hang_up(reading).await,
        Err(error) => tracing::debug!(error = report(&error), "a client went away"),
    }
}

async fn to_client(
    mut sink: SplitSink<Socket, Message>,
    channels: Channels,
    streams: &Streams,
    mut incoming: mpsc::Receiver<Frame>,
) -> Result<(), Error> {
    // An empty message tells the client that the connection stands.
    let first = match streams {
        Streams { stdout: true, .. } => channel::STDOUT,
        Streams { stderr: true, .. } => channel::STDERR,
        _ => channel::OUTCOME,
    };
    sink.send(channels.write(first, b"")).await?;
    let mut ended = None;
    while let Some(frame) = incoming.recv().await {
        match frame.channel {
            channel::OUTCOME => ended = serde_json::from_slice(&frame.data).ok().or(ended),
            _ if frame.data.is_empty() => {}
            number => sink.send(channels.write(number, &frame.data)).await?,
        }
    }
    let ended: Outcome = ended.unwrap_or_else(outcome::lost);
    if let Some(text) = outcome::render(&ended, channels.version) {
        sink.send(channels.write(channel::OUTCOME, text.as_bytes()))
            .await?;
    }
    goodbye(&mut sink).await
}

async fn from_client(mut stream: SplitStream<Socket>, channels: Channels, outgoing: mpsc::Sender<Frame>) {
    let mut sizes = Sizes::default();
    while let Some(Ok(message)) = stream.next().await {
        let sent = match channels.read(message) {
            Said::Data(channel::STDIN, data) => send(&outgoing, channel::STDIN, data).await,
            Said::Data(channel::RESIZE, data) => resize(&outgoing, &mut sizes, &data).await,
            Said::Closed(channel::STDIN) => {
                let closed = outgoing.send(Frame::close(channel::STDIN)).await;
                closed.map_err(|_| Gone)
            }
            Said::Data(..) | Said::Closed(_) | Said::Nothing => Ok(()),
            Said::End => return,
        };
        if sent == Err(Gone) {
            // The process takes no more; how it ended is still on its way. Pings are answered by reading on.
            while let Some(Ok(_)) = stream.next().await {}
            return;
        }
    }
}

/// Hands a new size on, if `data` holds one.
pub(super) async fn resize(
    outgoing: &mpsc::Sender<Frame>,
    sizes: &mut Sizes,
    data: &Bytes,
) -> Result<(), Gone> {
    let json = sizes.push(data).and_then(|size| serde_json::to_vec(&size).ok());
    match json {
        Some(json) => send(outgoing, channel::RESIZE, json.into()).await,
        None => Ok(()),
    }
}
