//! `exec` and `attach` over SPDY streams, one for each of a process's.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_report::report;
use flotilla_spdy::{NewStreams, Receiver, Sender};
use flotilla_tunnel::copy::send;
use flotilla_tunnel::request::{Outcome, Streams, channel};
use flotilla_tunnel::{Ends, Frame};
use futures::future::OptionFuture;
use tokio::sync::mpsc;

use super::remote_websocket::resize;
use super::sizes::Sizes;
use super::{Connection, outcome};

/// How long a client may take to open the streams that it has asked for.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// Joins a client with a process until either ends.
pub(super) async fn run(connection: Connection, version: u8, streams: &Streams, ends: Ends) {
    let program = |new_streams| join(new_streams, version, streams, ends);
    if let Err(error) = flotilla_spdy::serve(connection, program).await {
        tracing::debug!(error = report(&error), "a client's SPDY connection broke");
    }
}

async fn join(mut new_streams: NewStreams, version: u8, streams: &Streams, ends: Ends) {
    let wanted = wanted(streams, version);
    let opened = tokio::time::timeout(OPEN_LIMIT, open(&mut new_streams, wanted)).await;
    let Ok(Some(opened)) = opened else {
        return tracing::debug!("a client did not open its streams");
    };
    let Ends { outgoing, incoming } = ends;
    let mut senders = BTreeMap::new();
    let mut receivers = BTreeMap::new();
    for (number, (sender, receiver)) in opened {
        senders.insert(number, sender);
        receivers.insert(number, receiver);
    }
    let input: OptionFuture<_> = receivers
        .remove(&channel::STDIN)
        .map(|receiver| input(receiver, outgoing.clone()))
        .into();
    let sizes: OptionFuture<_> = receivers
        .remove(&channel::RESIZE)
        .map(|receiver| sizes(receiver, outgoing.clone()))
        .into();
    let mut feed = std::pin::pin!(async {
        tokio::join!(input, sizes);
        // The output goes on, and the node must not take the end of the input for the client's.
        std::future::pending::<()>().await;
        drop(outgoing);
    });
    let output = output(senders, version, incoming);
    // Once the process has ended, nothing needs to be read.
    tokio::select! {
        () = output => {}
        () = &mut feed => {}
    }
}

/// The streams that a client opens, by channel and in the words of its `streamtype` header.
fn wanted(streams: &Streams, version: u8) -> BTreeMap<&'static str, u8> {
    let all = [
        ("error", channel::OUTCOME, true),
        ("stdin", channel::STDIN, streams.stdin),
        ("stdout", channel::STDOUT, streams.stdout),
        ("stderr", channel::STDERR, streams.stderr),
        ("resize", channel::RESIZE, streams.tty && version >= 3),
    ];
    let wanted = all.into_iter().filter(|(_, _, is_wanted)| *is_wanted);
    wanted.map(|(name, number, _)| (name, number)).collect()
}

/// Takes the wanted streams; others are refused. `None`: the client has gone.
async fn open(
    new_streams: &mut NewStreams,
    mut wanted: BTreeMap<&'static str, u8>,
) -> Option<Vec<(u8, (Sender, Receiver))>> {
    let mut opened = Vec::new();
    while !wanted.is_empty() {
        let incoming = new_streams.next().await?;
        let kind = incoming.headers().get("streamtype").unwrap_or_default();
        match wanted.remove(kind) {
            Some(number) => opened.push((number, incoming.accept())),
            None => incoming.refuse(),
        }
    }
    Some(opened)
}

async fn input(mut receiver: Receiver, outgoing: mpsc::Sender<Frame>) {
    while let Ok(Some(data)) = receiver.recv().await {
        if send(&outgoing, channel::STDIN, data).await.is_err() {
            return;
        }
    }
    // The process may have ended before its input.
    let _ = outgoing.send(Frame::close(channel::STDIN)).await;
}

async fn sizes(mut receiver: Receiver, outgoing: mpsc::Sender<Frame>) {
    let mut sizes = Sizes::default();
    while let Ok(Some(data)) = receiver.recv().await {
        if resize(&outgoing, &mut sizes, &data).await.is_err() {
            return;
        }
    }
}

/// Sends what the process writes, then how it ended.
async fn output(mut senders: BTreeMap<u8, Sender>, version: u8, mut incoming: mpsc::Receiver<Frame>) {
    let mut ended = None;
    while let Some(frame) = incoming.recv().await {
        if frame.channel == channel::OUTCOME {
            ended = serde_json::from_slice(&frame.data).ok().or(ended);
        } else if let Some(sender) = senders.get_mut(&frame.channel)
            && sender.send(frame.data).await.is_err()
        {
            // The client wants no more of this one.
            senders.remove(&frame.channel);
        }
    }
    let ended: Outcome = ended.unwrap_or_else(outcome::lost);
    if let (Some(text), Some(sender)) = (
        outcome::render(&ended, version),
        senders.get_mut(&channel::OUTCOME),
    ) {
        // A client that has gone does not want to know.
        let _ = sender.send(text.into()).await;
    }
    for (_, sender) in senders {
        let _ = sender.finish().await;
    }
}
