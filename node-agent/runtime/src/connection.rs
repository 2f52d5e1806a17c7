//! The agent's end of the socket to one shim.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::containers::Containers;
use crate::protocol::{Answer, Call, Decoder, Message, Refusal, Request, encode};
use crate::spec::{ContainerSpec, ContainerState, Started};

/// A request and where its answer goes.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) call: Call,
    pub(crate) reply: oneshot::Sender<Result<Answer, Refusal>>,
}

/// An asked request without its answer yet.
struct Pending {
    reply: oneshot::Sender<Result<Answer, Refusal>>,
    /// What the answer changes in the list of containers.
    effect: Effect,
}

enum Effect {
    Nothing,
    Adds(Box<ContainerState>),
    Removes(String),
}

/// Carries requests and news until the shim is gone.
///
/// *Guarantees*: a container is in the list before its exit is, and before whoever started it hears of it.
pub(crate) async fn run(mut stream: UnixStream, mut asks: mpsc::Receiver<Ask>, containers: Arc<Containers>) {
    let mut decoder = Decoder::new();
    let mut buffer = Vec::with_capacity(4096);
    let mut pending = HashMap::new();
    let mut last_id = 0;
    loop {
        buffer.clear();
        tokio::select! {
            // Cancel safe: what is read is in the buffer, else nothing is read.
            count = stream.read_buf(&mut buffer) => {
                decoder.push(&buffer);
                let end = !matches!(count, Ok(count) if count > 0);
                if accept(&mut decoder, &mut pending, &containers).is_err() || end {
                    return;
                }
            }
            // Cancel safe: an ask that is not received stays in the queue.
            ask = asks.recv() => {
                let Some(ask) = ask else { return };
                last_id += 1;
                if send(&mut stream, last_id, ask, &mut pending).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn send(
    stream: &mut UnixStream,
    id: u64,
    ask: Ask,
    pending: &mut HashMap<u64, Pending>,
) -> io::Result<()> {
    let effect = match &ask.call {
        Call::Start(spec) => Effect::Adds(Box::new(state_of(spec))),
        Call::Remove { id } => Effect::Removes(id.clone()),
        _ => Effect::Nothing,
    };
    pending.insert(
        id,
        Pending {
            reply: ask.reply,
            effect,
        },
    );
    stream.write_all(&encode(&Request { id, call: ask.call })?).await
}

fn accept(
    decoder: &mut Decoder<Message>,
    pending: &mut HashMap<u64, Pending>,
    containers: &Containers,
) -> io::Result<()> {
    while let Some(message) = decoder.next()? {
        match message {
            Message::Exited { id, exit } => containers.finish(&id, exit),
            Message::Reply { id, result } => {
                let Some(asked) = pending.remove(&id) else {
                    continue;
                };
                record(&result, asked.effect, containers);
                // Whoever asked may have stopped waiting.
                asked.reply.send(result).ok();
            }
        }
    }
    Ok(())
}

fn record(result: &Result<Answer, Refusal>, effect: Effect, containers: &Containers) {
    match (result, effect) {
        (
            Ok(Answer::Hello {
                containers: found, ..
            }),
            _,
        ) => {
            found.iter().for_each(|state| containers.add(state.clone()));
        }
        (Ok(Answer::Started(Started { pid, started_at })), Effect::Adds(state)) => {
            containers.add(ContainerState {
                pid: *pid,
                started_at: *started_at,
                ..*state
            });
        }
        (Ok(Answer::Done), Effect::Removes(id)) => containers.forget(&id),
        _ => {}
    }
}

fn state_of(spec: &ContainerSpec) -> ContainerState {
    ContainerState {
        id: spec.id.clone(),
        name: spec.name.clone(),
        attempt: spec.attempt,
        pid: 0,
        started_at: jiff::Timestamp::UNIX_EPOCH,
        log_path: spec.log_path.clone(),
        finished: None,
    }
}
