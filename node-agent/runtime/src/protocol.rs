//! What agent and shim say to each other: JSON frames, each after its length.

use std::io;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::errors::StartContainerError;
use crate::exec::{AttachSpec, ExecSpec};
use crate::spec::{ContainerSpec, ContainerState, Exit, Started};

/// A frame beyond this is refused: no spec comes near it (the API server's limit on objects is 3 MiB).
const FRAME_BYTES_MAX: usize = 16 << 20;

/// From the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Comes back in the reply.
    pub(crate) id: u64,
    pub(crate) call: Call,
}

/// What the agent may ask for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Who are you, and what do you have?
    Hello,
    /// Create and start a container.
    Start(Box<ContainerSpec>),
    /// Send a signal.
    Kill { id: String, signal: i32 },
    /// Forget a finished container and delete what it leaves.
    Remove { id: String },
    /// Kill everything; the shim ends after its answer.
    Shutdown,
    /// Run a program in a container. The only request of its connection.
    Exec(Box<ExecSpec>),
    /// Attach to a container's streams. The only request of its connection.
    Attach { id: String, spec: AttachSpec },
}

/// From the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The answer to a request.
    Reply {
        id: u64,
        result: Result<Answer, Refusal>,
    },
    /// News: its exit code is on disk.
    Exited { id: String, exit: Exit },
}

/// A request was carried out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Hello {
        pid: i32,
        containers: Vec<ContainerState>,
    },
    Started(Started),
    Done,
    /// The descriptors come with this message.
    Streams(Handles),
}

/// Which descriptors come with an answer, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handles {
    /// The master of the terminal.
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// A pidfd of the program, unless it has ended already.
    pub(crate) process: bool,
}

/// A request was not carried out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Start(StartFailure),
    UnknownContainer,
    StillRunning,
    NotRunning,
    Errno(i32),
    Other(String),
}

/// [`StartContainerError`] as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StartFailure {
    CommandNotFound { command: String },
    PathNotFound { command: String },
    NotExecutable { command: String, reason: String },
    BadWorkingDirectory { cwd: String, reason: String },
    BadImage { reason: String },
    BadSpec { reason: String },
    Create { reason: String },
}

impl From<StartFailure> for StartContainerError {
    fn from(failure: StartFailure) -> Self {
        match failure {
            StartFailure::CommandNotFound { command } => Self::CommandNotFound { command },
            StartFailure::PathNotFound { command } => Self::PathNotFound { command },
            StartFailure::NotExecutable { command, reason } => Self::NotExecutable { command, reason },
            StartFailure::BadWorkingDirectory { cwd, reason } => Self::BadWorkingDirectory { cwd, reason },
            StartFailure::BadImage { reason } => Self::BadImage { reason },
            StartFailure::BadSpec { reason } => Self::BadSpec { reason },
            StartFailure::Create { reason } => Self::Create { reason },
        }
    }
}

/// One frame, ready to be written.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Puts frames together from what a socket yields.
#[derive(Debug)]
pub(crate) struct Decoder<T> {
    bytes: Vec<u8>,
    frame: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Decoder<T> {
    pub(crate) fn new() -> Self {
        Decoder {
            bytes: Vec::new(),
            frame: PhantomData,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    pub(crate) fn next(&mut self) -> io::Result<Option<T>> {
        let Some(head) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other("the frame is too long"));
        }
        let Some(body) = self.bytes.get(4..4 + length) else {
            return Ok(None);
        };
        let value = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(4096);
        }
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let request = Request {
            id: 7,
            call: Call::Kill {
                id: "web-0".into(),
                signal: 15,
            },
        };
        let mut bytes = encode(&request).unwrap();
        bytes.extend(
            encode(&Request {
                id: 8,
                call: Call::Hello,
            })
            .unwrap(),
        );
        let mut decoder = Decoder::<Request>::new();
        let mut ids = Vec::new();
        for byte in bytes {
            decoder.push(&[byte]);
            while let Some(request) = decoder.next().unwrap() {
                ids.push(request.id);
            }
        }
        assert_eq!(ids, [7, 8]);
    }

    #[test]
    fn a_frame_that_is_too_long_is_an_error() {
        let mut decoder = Decoder::<Request>::new();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(decoder.next().is_err());
    }
}
