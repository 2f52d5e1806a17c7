//! Speaks netfilter's netlink protocol: whole transactions in one message, and dumps.
//!
//! The `nft` program costs a process and dumps whole sets for a change of one element; here a change costs what it
//! changes.

mod message;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};

pub use message::{Attributes, Messages, attributes};

/// Room for a transaction of some hundred thousand elements; the kernel takes memory only for what is sent.
const SEND_BYTES_MAX: usize = 64 << 20;
/// Room for the answers to it and for dumps.
const RECEIVE_BYTES_MAX: usize = 8 << 20;
/// No message of a dump is larger.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket cannot be had or used.
    #[error("cannot talk with netfilter")]
    Socket(#[source] io::Error),
    /// The kernel refused a message; of a transaction nothing was done.
    #[error("netfilter refuses {what}")]
    Refused {
        /// What the message was about.
        what: &'static str,
        /// What the kernel said.
        source: Errno,
    },
    /// Answers were lost, so that nobody knows what came of the request.
    #[error("netfilter's answer to {what} was lost")]
    Lost {
        /// What was asked.
        what: &'static str,
    },
}

impl From<Errno> for NetlinkError {
    fn from(errno: Errno) -> Self {
        NetlinkError::Socket(errno.into())
    }
}

/// A connection to netfilter in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens it.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // Both need a capability that an agent has; without it small transactions still work.
        let forced = setsockopt(&socket, sockopt::SndBufForce, &SEND_BYTES_MAX)
            .and_then(|()| setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES_MAX));
        if let Err(errno) = forced {
            tracing::debug!(%errno, "the buffers of the netfilter socket stay small");
        }
        Ok(Self {
            socket,
            buffer: vec![0; MESSAGE_BYTES_MAX],
        })
    }

    /// Carries out all messages, or none of them.
    pub fn commit(&mut self, messages: Messages) -> Result<(), NetlinkError> {
        let (bytes, expected) = messages.into_transaction();
        self.exchange(&bytes, &expected)
    }

    /// Carries out messages one by one; those that the kernel refuses with `tolerated` count as done.
    pub fn request_all(&mut self, messages: Messages, tolerated: Errno) -> Result<(), NetlinkError> {
        for (bytes, what) in messages.into_requests() {
            match self.exchange(&bytes, &[what]) {
                Err(NetlinkError::Refused { source, .. }) if source == tolerated => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Sends and takes the answers. Requests to the kernel are done when the call returns, so answers never wait.
    fn exchange(&mut self, bytes: &[u8], what: &[&'static str]) -> Result<(), NetlinkError> {
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty())?;
        let last = what.last().copied().unwrap_or("nothing");
        let mut outcome = Err(NetlinkError::Lost { what: last });
        let mut refused = None;
        while let Some(length) = self.receive(MsgFlags::MSG_DONTWAIT)? {
            for (kind, sequence, body) in frames(&self.buffer[..length]) {
                let Some(code) = (kind == NLMSG_ERROR).then(|| native_i32(body)).flatten() else {
                    continue;
                };
                if code == 0 {
                    outcome = Ok(());
                } else if refused.is_none() {
                    let what = what.get(sequence as usize).copied().unwrap_or(last);
                    let source = Errno::from_raw(-code);
                    refused = Some(NetlinkError::Refused { what, source });
                }
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None => outcome,
        }
    }

    /// Asks for a list and hands each message's attributes (after netfilter's own header) to `take`.
    pub fn dump(&mut self, request: Messages, mut take: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        for (bytes, what) in request.into_requests() {
            send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
            'parts: loop {
                let Some(length) = self.receive(MsgFlags::empty())? else {
                    return Err(NetlinkError::Lost { what });
                };
                for (kind, _, body) in frames(&self.buffer[..length]) {
                    match kind {
                        NLMSG_DONE => break 'parts,
                        NLMSG_ERROR => match native_i32(body) {
                            Some(0) | None => break 'parts,
                            Some(code) => {
                                let source = Errno::from_raw(-code);
                                return Err(NetlinkError::Refused { what, source });
                            }
                        },
                        _ => take(body.get(4..).unwrap_or_default()),
                    }
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<Option<usize>, NetlinkError> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(None),
                Ok(length) => return Ok(Some(length)),
                Err(Errno::EINTR) => {}
                // Answers were dropped; what remains tells enough.
                Err(Errno::ENOBUFS) if flags.contains(MsgFlags::MSG_DONTWAIT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The messages in a datagram: type, sequence number, body.
fn frames(mut datagram: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = native_i32(datagram)?;
        let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
        let frame = datagram.get(..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes(frame[4..6].try_into().ok()?);
        let sequence = u32::from_ne_bytes(frame[8..12].try_into().ok()?);
        Some((kind, sequence, &frame[HEADER..]))
    })
}

fn native_i32(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}
