//! One agent's connection to the shim.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::descriptors;
use crate::protocol::{Decoder, Message, Request, encode};

/// Whose ends a connection is told of.
pub(super) enum Interest {
    /// Nobody's yet, or that of the one program that it belongs to.
    Nothing,
    /// Those of all containers.
    All,
    /// That of the container that it is attached to.
    Container(String),
}

/// A connected agent.
pub(super) struct Client {
    stream: UnixStream,
    decoder: Decoder<Request>,
    /// Not yet taken by the socket. An agent that does not read causes no more than one message per request
    /// and per container, so this stays small.
    outgoing: Vec<u8>,
    /// Go with the next bytes.
    descriptors: Vec<OwnedFd>,
    pub(super) interest: Interest,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> io::Result<Client> {
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream,
            decoder: Decoder::new(),
            outgoing: Vec::new(),
            descriptors: Vec::new(),
            interest: Interest::Nothing,
        })
    }

    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Reads what has come; an error or end of file means that the agent is gone.
    pub(super) fn receive(&mut self) -> io::Result<Vec<Request>> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut requests = Vec::new();
        while let Some(request) = self.decoder.next()? {
            requests.push(request);
        }
        Ok(requests)
    }

    /// Whether it is told of the end of container `id`.
    pub(super) fn cares_for(&self, id: &str) -> bool {
        match &self.interest {
            Interest::Nothing => false,
            Interest::All => true,
            Interest::Container(own) => own == id,
        }
    }

    /// Sends a message and descriptors, which arrive with it or before.
    pub(super) fn send(&mut self, message: &Message, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.outgoing.extend(encode(message)?);
        self.descriptors.extend(descriptors);
        self.flush()
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match descriptors::send(&self.stream, &self.outgoing, &self.descriptors) {
                Ok(count) => {
                    self.outgoing.drain(..count);
                    self.descriptors.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing = Vec::new();
        Ok(())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
