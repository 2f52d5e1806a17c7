//! One agent's connection to the shim.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::protocol::{Decoder, Message, Request, encode};

/// A connected agent.
pub(super) struct Client {
    stream: UnixStream,
    decoder: Decoder<Request>,
    /// Not yet taken by the socket. An agent that does not read causes no more than one message per request
    /// and per container, so this stays small.
    outgoing: Vec<u8>,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> io::Result<Client> {
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream,
            decoder: Decoder::new(),
            outgoing: Vec::new(),
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
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

    pub(super) fn send(&mut self, message: &Message) -> io::Result<()> {
        self.outgoing.extend(encode(message)?);
        self.flush()
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing = Vec::new();
        Ok(())
    }
}
