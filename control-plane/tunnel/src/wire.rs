//! Frames as gRPC messages.

use flotilla_api::{Reason, Status};
use flotilla_proto::node::{StreamFrame, StreamRefusal};

use crate::Frame;

/// A frame on its way.
pub fn to_wire(frame: Frame) -> StreamFrame {
    StreamFrame {
        channel: frame.channel.into(),
        data: frame.data,
        close: frame.close,
        ..StreamFrame::default()
    }
}

/// A frame that came; `None` when no stream has such a channel.
pub fn from_wire(frame: StreamFrame) -> Option<Frame> {
    Some(Frame {
        channel: u8::try_from(frame.channel).ok()?,
        data: frame.data,
        close: frame.close,
    })
}

/// The first message of a stream: the node begins it, or says why it does not.
pub fn opening(stream_id: String, refusal: Option<&Status>) -> StreamFrame {
    StreamFrame {
        stream_id,
        refusal: refusal.map(|status| StreamRefusal {
            reason: status.reason.as_str().to_owned(),
            message: status.message.clone(),
        }),
        ..StreamFrame::default()
    }
}

/// Why there is no stream, if the first message says so.
pub fn refusal(first: StreamFrame) -> Option<Status> {
    let refusal = first.refusal?;
    // A newer agent may know reasons that this server does not.
    let reason = Reason::parse(&refusal.reason).unwrap_or(Reason::InternalError);
    Some(Status::new(reason, refusal.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_reason() {
        let status = Status::new(Reason::NotFound, "container not found (\"a\")");
        let first = opening("1".to_owned(), Some(&status));
        assert_eq!(refusal(first), Some(status));
        assert_eq!(refusal(opening("1".to_owned(), None)), None);
    }

    #[test]
    fn frames_cross_unchanged() {
        for frame in [Frame::data(255, "a"), Frame::close(0)] {
            assert_eq!(from_wire(to_wire(frame.clone())), Some(frame));
        }
        let alien = StreamFrame {
            channel: 256,
            ..StreamFrame::default()
        };
        assert_eq!(from_wire(alien), None);
    }
}
