//! The server's side of a connection: the client opens streams, a program takes them.

mod io;
mod shared;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::frame::{DecodeError, Frame, ResetCode, StreamId};
use crate::headers::{Headers, HeadersError};
use shared::{Event, Shared};

/// Streams that wait to be taken; then the connection is not read on.
const NEW_STREAMS_MAX: usize = 32;
/// Data frames that wait for the transport.
const OUTGOING_MAX: usize = 16;
/// What one data frame holds when it is ours.
const SEND_BYTES_MAX: usize = 32 << 10;
/// How long a peer may take to hang up once everything was said.
const HANG_UP_LIMIT: Duration = Duration::from_secs(5);

/// Why a connection broke.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The transport failed.
    #[error("the connection failed")]
    Transport(#[from] std::io::Error),
    /// The peer does not speak SPDY/3.1.
    #[error(transparent)]
    Frame(#[from] DecodeError),
    /// The peer's headers cannot be read.
    #[error(transparent)]
    Headers(#[from] HeadersError),
}

/// The stream was ended by the client, or with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset;

/// Serves a connection with `program`, which gets the streams that the client opens.
///
/// When the program ends, what it sent is delivered, and the connection is closed. When the connection ends first,
/// the program is dropped, and the answer is `None`.
pub async fn serve<T, F>(
    transport: impl AsyncRead + AsyncWrite,
    program: impl FnOnce(NewStreams) -> F,
) -> Result<Option<T>, ConnectionError>
where
    F: Future<Output = T>,
{
    let (reader, writer) = tokio::io::split(transport);
    let (new_streams, taken) = mpsc::channel(NEW_STREAMS_MAX);
    let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
    let shared = Arc::new(Shared::new(outgoing));
    let program = program(NewStreams {
        taken,
        shared: shared.clone(),
    });
    let mut reading = std::pin::pin!(io::read(reader, &shared, new_streams));
    let mut writing = std::pin::pin!(io::write(writer, &shared, queue));
    // Whatever ends first, ends the others: see above.
    let outcome = tokio::select! {
        outcome = program => outcome,
        read = &mut reading => {
            shared.close();
            return read.map(|()| None);
        }
        written = &mut writing => {
            shared.close();
            return written.map(|()| None);
        }
    };
    shared.finish();
    let end = async {
        // Input that is never read would reset the connection, and what was sent with it.
        tokio::try_join!(writing, reading).map(drop)
    };
    match tokio::time::timeout(HANG_UP_LIMIT, end).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) | Err(_) => Ok(Some(outcome)),
    }
}

/// The streams that the client opens.
#[derive(Debug)]
pub struct NewStreams {
    taken: mpsc::Receiver<Incoming>,
    shared: Arc<Shared>,
}

impl NewStreams {
    /// The next one; `None` when the client will open no more. Cancel safe.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.taken.recv().await
    }
}

impl Drop for NewStreams {
    /// Streams that come now are refused.
    fn drop(&mut self) {
        self.taken.close();
        while let Ok(incoming) = self.taken.try_recv() {
            self.shared.reset(incoming.stream, ResetCode::RefusedStream);
        }
    }
}

/// A stream that the client has opened and that is not answered yet.
#[derive(Debug)]
pub struct Incoming {
    headers: Headers,
    stream: StreamId,
    events: mpsc::Receiver<Event>,
    shared: Arc<Shared>,
}

impl Incoming {
    /// Its number; streams of one client are numbered upwards.
    pub fn id(&self) -> StreamId {
        self.stream
    }

    /// What the client says about it.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Takes the stream: the client may send, and is sent to.
    pub fn accept(self) -> (Sender, Receiver) {
        self.shared.reply(self.stream);
        let sender = Sender {
            stream: self.stream,
            shared: self.shared.clone(),
        };
        let receiver = Receiver {
            stream: self.stream,
            events: self.events,
            is_over: false,
            shared: self.shared,
        };
        (sender, receiver)
    }

    /// Ends the stream before it has begun.
    pub fn refuse(self) {
        self.shared.reset(self.stream, ResetCode::RefusedStream);
    }
}

/// To the client on one stream.
#[derive(Debug)]
pub struct Sender {
    stream: StreamId,
    shared: Arc<Shared>,
}

impl Sender {
    /// Sends data, as fast as the connection and the client's windows take it.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), Reset> {
        while !data.is_empty() {
            let wanted = data.len().min(SEND_BYTES_MAX);
            let allowed = self.shared.take_window(self.stream, wanted).await?;
            let frame = Frame::Data {
                stream: self.stream,
                fin: false,
                data: data.split_to(allowed),
            };
            self.shared.send(frame).await?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub async fn finish(self) -> Result<(), Reset> {
        let frame = Frame::Data {
            stream: self.stream,
            fin: true,
            data: Bytes::new(),
        };
        self.shared.send(frame).await?;
        self.shared.finish_sending(self.stream);
        Ok(())
    }

    /// Ends the stream at once, in both directions.
    pub fn reset(self) {
        self.shared.reset(self.stream, ResetCode::Cancel);
    }
}

/// From the client on one stream.
#[derive(Debug)]
pub struct Receiver {
    stream: StreamId,
    events: mpsc::Receiver<Event>,
    is_over: bool,
    shared: Arc<Shared>,
}

impl Receiver {
    /// The next bytes, `None` when the client has said that there are no more. Cancel safe.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Reset> {
        if self.is_over {
            return Ok(None);
        }
        match self.events.recv().await {
            Some(Event::Data(data)) => {
                self.shared.grant(self.stream, data.len());
                Ok(Some(data))
            }
            Some(Event::End) => {
                self.is_over = true;
                Ok(None)
            }
            None => Err(Reset),
        }
    }
}

#[cfg(test)]
mod tests;
