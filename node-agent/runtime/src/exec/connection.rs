//! A connection to a shim that belongs to one exec or one attachment.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::descriptors;
use crate::errors::ShimError;
use crate::protocol::{Call, Decoder, Message, Request, encode};

/// Enough for any message of the shim but its longest errors, which take several reads.
const READ_BYTES: usize = 4096;

/// The agent's end.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    decoder: Decoder<Message>,
    descriptors: VecDeque<OwnedFd>,
}

impl Connection {
    pub(super) fn new(stream: StdUnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream: UnixStream::from_std(stream)?,
            decoder: Decoder::new(),
            descriptors: VecDeque::new(),
        })
    }

    /// Sends the connection's only request.
    pub(super) async fn send(&mut self, call: Call) -> Result<(), ShimError> {
        let frame = encode(&Request { id: 1, call }).map_err(|source| ShimError::Refused {
            message: source.to_string(),
        })?;
        self.stream.write_all(&frame).await.map_err(|_| ShimError::Gone)
    }

    /// The next message. Cancel safe: what has been read stays in the decoder.
    pub(super) async fn next(&mut self) -> Result<Message, ShimError> {
        loop {
            match self.decoder.next() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => {
                    return Err(ShimError::Refused {
                        message: error.to_string(),
                    });
                }
            }
            // A shim of an earlier version closes the connection at a request that it does not know.
            self.receive().await.map_err(|_| ShimError::Gone)?;
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        loop {
            self.stream.readable().await?;
            let received = self.stream.try_io(Interest::READABLE, || {
                descriptors::receive(&self.stream, &mut buffer)
            });
            match received {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, descriptors)) => {
                    self.decoder.push(&buffer[..count]);
                    self.descriptors.extend(descriptors);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next descriptor that came with a message.
    pub(super) fn take_descriptor(&mut self) -> io::Result<OwnedFd> {
        self.descriptors
            .pop_front()
            .ok_or_else(|| io::Error::other("the shim has sent too few descriptors"))
    }
}
