//! Streams between a server and a node, each for one client of the API: a command, a forwarded port.
//!
//! Both ends see the same thing: [`Ends`], frames on numbered channels in either direction. How frames travel is the
//! business of the server's and the agent's gRPC code; here is what they mean ([`request`]) and how bytes become
//! frames and back ([`copy`]). Queues are short, so whoever is slow holds back the other end and nobody else.

pub mod copy;
pub mod request;
mod wire;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use wire::{from_wire, opening, refusal, to_wire};

/// A frame holds at most so many bytes of data.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// Frames that wait in each direction at each end: enough to keep a connection busy, and half a megabyte at most.
const FRAMES_MAX: usize = 8;

/// One piece of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// What the data is; its meaning depends on the stream's kind.
    pub channel: u8,
    /// Up to [`FRAME_BYTES_MAX`] bytes.
    pub data: Bytes,
    /// Whether the sender has no more for this channel.
    pub close: bool,
}

impl Frame {
    /// A frame with data.
    pub fn data(channel: u8, data: impl Into<Bytes>) -> Self {
        Self {
            channel,
            data: data.into(),
            close: false,
        }
    }

    /// The end of a channel.
    pub fn close(channel: u8) -> Self {
        Self {
            channel,
            data: Bytes::new(),
            close: true,
        }
    }
}

/// One end of a stream.
///
/// Dropping it ends the stream. A receiver that is empty for good without a [`Frame::close`] before means that the
/// other end, or the connection to it, has gone.
#[derive(Debug)]
pub struct Ends {
    /// To the other end.
    pub outgoing: mpsc::Sender<Frame>,
    /// From the other end.
    pub incoming: mpsc::Receiver<Frame>,
}

/// Both ends of a new stream: what one sends, the other receives.
pub fn pair() -> (Ends, Ends) {
    let (here, there) = (mpsc::channel(FRAMES_MAX), mpsc::channel(FRAMES_MAX));
    let one = Ends {
        outgoing: here.0,
        incoming: there.1,
    };
    let other = Ends {
        outgoing: there.0,
        incoming: here.1,
    };
    (one, other)
}
