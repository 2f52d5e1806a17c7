//! Frames: bytes in, frames out, and back. Pure.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// A data frame may hold up to 16 MiB; nobody sends so much, and less is easier on memory.
pub const DATA_BYTES_MAX: usize = 1 << 20;
/// A control frame longer than this is no honest one.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;

const VERSION: u16 = 3;
const HEAD_BYTES: usize = 8;
const CONTROL: u32 = 1 << 31;
const ID_MASK: u32 = !CONTROL;
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// The number of a stream; odd when the client opened it.
pub type StreamId = u32;

/// Why a stream was ended by [`Frame::Reset`].
#[allow(missing_docs, reason = "the names are SPDY's own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ResetCode {
    ProtocolError = 1,
    InvalidStream = 2,
    RefusedStream = 3,
    Cancel = 5,
    StreamInUse = 8,
    StreamAlreadyClosed = 9,
}

/// One frame. Header blocks are still compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A stream begins.
    Open {
        /// Its number.
        stream: StreamId,
        /// Its opener sends nothing on it.
        fin: bool,
        /// Its opener wants no data on it.
        unidirectional: bool,
        /// Compressed headers.
        block: Bytes,
    },
    /// A stream is accepted.
    Reply {
        /// Which.
        stream: StreamId,
        /// The sender sends nothing on it.
        fin: bool,
        /// Compressed headers.
        block: Bytes,
    },
    /// More headers of a stream.
    MoreHeaders {
        /// Which.
        stream: StreamId,
        /// The sender sends nothing more on it.
        fin: bool,
        /// Compressed headers.
        block: Bytes,
    },
    /// Bytes of a stream.
    Data {
        /// Which.
        stream: StreamId,
        /// The sender sends nothing more on it.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
    /// A stream ends at once, in both directions.
    Reset {
        /// Which.
        stream: StreamId,
        /// A [`ResetCode`].
        code: u32,
    },
    /// How many bytes may be sent on each new stream before more is granted, if the peer says so.
    Settings {
        /// Of the settings only this one matters here.
        initial_window: Option<u32>,
    },
    /// Asks for the same frame back.
    Ping {
        /// Odd when the client asks.
        id: u32,
    },
    /// The sender takes no further streams.
    GoAway {
        /// The last stream that it took.
        last_stream: StreamId,
    },
    /// So many more bytes may be sent.
    WindowUpdate {
        /// On this stream, or on the whole connection when 0.
        stream: StreamId,
        /// How many more.
        delta: u32,
    },
    /// A frame of a type that SPDY/3.1 does not have; to be ignored.
    Unknown,
}

/// Why the peer's bytes are not SPDY/3.1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a version that this crate speaks.
    #[error("the peer speaks SPDY/{0}, not SPDY/3")]
    Version(u16),
    /// A frame that is too long to be honest.
    #[error("the peer sent a frame of {0} bytes, which is too long")]
    TooLong(usize),
    /// A frame that does not hold what its type says.
    #[error("the peer sent a malformed frame of type {0}")]
    Malformed(u16),
}

/// Takes the next whole frame from the front of `buffer`; `None` when it has not arrived yet.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
    let Some(mut head) = buffer.get(..HEAD_BYTES) else {
        return Ok(None);
    };
    let first = head.get_u32();
    let rest = head.get_u32();
    let (flags, length) = ((rest >> 24) as u8, (rest & 0xff_ffff) as usize);
    let limit = match first & CONTROL {
        0 => DATA_BYTES_MAX,
        _ => CONTROL_BYTES_MAX,
    };
    if first & CONTROL != 0 && (first >> 16 & 0x7fff) as u16 != VERSION {
        return Err(DecodeError::Version((first >> 16 & 0x7fff) as u16));
    }
    if length > limit {
        return Err(DecodeError::TooLong(length));
    }
    if buffer.len() < HEAD_BYTES + length {
        return Ok(None);
    }
    buffer.advance(HEAD_BYTES);
    let body = buffer.split_to(length).freeze();
    if first & CONTROL == 0 {
        return Ok(Some(Frame::Data {
            stream: first,
            fin: flags & FLAG_FIN != 0,
            data: body,
        }));
    }
    let kind = (first & 0xffff) as u16;
    control(kind, flags, body)
        .map(Some)
        .ok_or(DecodeError::Malformed(kind))
}

fn control(kind: u16, flags: u8, mut body: Bytes) -> Option<Frame> {
    let fin = flags & FLAG_FIN != 0;
    let id = |body: &mut Bytes| body.try_get_u32().ok().map(|id| id & ID_MASK);
    let frame = match kind {
        SYN_STREAM => {
            let stream = id(&mut body)?;
            let _associated = id(&mut body)?;
            let _priority_and_slot = body.try_get_u16().ok()?;
            let unidirectional = flags & 2 != 0;
            Frame::Open {
                stream,
                fin,
                unidirectional,
                block: body,
            }
        }
        SYN_REPLY => Frame::Reply {
            stream: id(&mut body)?,
            fin,
            block: body,
        },
        HEADERS => Frame::MoreHeaders {
            stream: id(&mut body)?,
            fin,
            block: body,
        },
        RST_STREAM => Frame::Reset {
            stream: id(&mut body)?,
            code: body.try_get_u32().ok()?,
        },
        SETTINGS => Frame::Settings {
            initial_window: initial_window(body)?,
        },
        PING => Frame::Ping {
            id: body.try_get_u32().ok()?,
        },
        GOAWAY => Frame::GoAway {
            last_stream: id(&mut body)?,
        },
        WINDOW_UPDATE => Frame::WindowUpdate {
            stream: id(&mut body)?,
            delta: id(&mut body)?,
        },
        _ => Frame::Unknown,
    };
    Some(frame)
}

fn initial_window(mut body: Bytes) -> Option<Option<u32>> {
    const INITIAL_WINDOW_SIZE: u32 = 7;
    let count = body.try_get_u32().ok()?;
    let mut found = None;
    for _ in 0..count {
        let id = body.try_get_u32().ok()? & 0xff_ffff;
        let value = body.try_get_u32().ok()?;
        if id == INITIAL_WINDOW_SIZE {
            found = Some(value & ID_MASK);
        }
    }
    Some(found)
}

/// Appends a frame to what is to be sent.
///
/// *Assumes* that data is at most [`DATA_BYTES_MAX`] long, and a header block at most [`CONTROL_BYTES_MAX`].
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    let fin = |fin: bool| if fin { FLAG_FIN } else { 0 };
    match frame {
        Frame::Data {
            stream,
            fin: is_last,
            data,
        } => {
            head(out, *stream, fin(*is_last), data.len());
            out.extend_from_slice(data);
        }
        Frame::Open {
            stream,
            fin: is_last,
            unidirectional,
            block,
        } => {
            let flags = fin(*is_last) | if *unidirectional { 2 } else { 0 };
            control_head(out, SYN_STREAM, flags, 10 + block.len());
            out.put_u32(*stream);
            out.put_u32(0);
            out.put_u16(0);
            out.extend_from_slice(block);
        }
        Frame::Reply {
            stream,
            fin: is_last,
            block,
        } => with_block(out, SYN_REPLY, *stream, fin(*is_last), block),
        Frame::MoreHeaders {
            stream,
            fin: is_last,
            block,
        } => {
            with_block(out, HEADERS, *stream, fin(*is_last), block);
        }
        Frame::Reset { stream, code } => numbers(out, RST_STREAM, &[*stream, *code]),
        Frame::Settings { initial_window: None } => numbers(out, SETTINGS, &[0]),
        Frame::Settings {
            initial_window: Some(window),
        } => numbers(out, SETTINGS, &[1, 7, *window]),
        Frame::Ping { id } => numbers(out, PING, &[*id]),
        Frame::GoAway { last_stream } => numbers(out, GOAWAY, &[*last_stream, 0]),
        Frame::WindowUpdate { stream, delta } => numbers(out, WINDOW_UPDATE, &[*stream, *delta]),
        Frame::Unknown => {}
    }
}

fn head(out: &mut BytesMut, first: u32, flags: u8, length: usize) {
    out.put_u32(first);
    // Lengths are bounded far below 16 MiB.
    out.put_u32(u32::from(flags) << 24 | length as u32 & 0xff_ffff);
}

fn control_head(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    head(
        out,
        CONTROL | u32::from(VERSION) << 16 | u32::from(kind),
        flags,
        length,
    );
}

fn with_block(out: &mut BytesMut, kind: u16, stream: StreamId, flags: u8, block: &[u8]) {
    control_head(out, kind, flags, 4 + block.len());
    out.put_u32(stream);
    out.extend_from_slice(block);
}

fn numbers(out: &mut BytesMut, kind: u16, numbers: &[u32]) {
    control_head(out, kind, 0, 4 * numbers.len());
    for number in numbers {
        out.put_u32(*number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn round(frame: Frame) {
        let mut bytes = BytesMut::new();
        encode(&frame, &mut bytes);
        let whole = bytes.clone();
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(decode(&mut part), Ok(None), "{cut} bytes are no frame");
            assert_eq!(part, whole[..cut], "nothing is taken from a part");
        }
        assert_eq!(decode(&mut bytes), Ok(Some(frame)));
        assert!(bytes.is_empty());
    }

    #[test]
    fn frames_come_back_whole() {
        let block = Bytes::from_static(b"block");
        round(Frame::Open {
            stream: 1,
            fin: true,
            unidirectional: true,
            block: block.clone(),
        });
        round(Frame::Reply {
            stream: 3,
            fin: false,
            block: block.clone(),
        });
        round(Frame::MoreHeaders {
            stream: 3,
            fin: true,
            block: block.clone(),
        });
        round(Frame::Data {
            stream: ID_MASK,
            fin: true,
            data: block,
        });
        round(Frame::Reset {
            stream: 7,
            code: ResetCode::Cancel as u32,
        });
        round(Frame::Settings { initial_window: None });
        round(Frame::Settings {
            initial_window: Some(1 << 20),
        });
        round(Frame::Ping { id: 9 });
        round(Frame::GoAway { last_stream: 5 });
        round(Frame::WindowUpdate { stream: 0, delta: 77 });
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: &Result<Option<Frame>, DecodeError>) {
        assert_eq!(decode(&mut BytesMut::from(bytes)), *expected);
    }

    #[test]
    fn what_is_not_spdy_3_is_refused() {
        check(&[0x80, 2, 0, 6, 0, 0, 0, 4], &Err(DecodeError::Version(2)));
        check(
            &[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0],
            &Err(DecodeError::Malformed(6)),
        );
        check(
            &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
            &Err(DecodeError::TooLong(0xff_ffff)),
        );
        check(
            &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff],
            &Err(DecodeError::TooLong(0xff_ffff)),
        );
        // More settings than there are bytes for.
        check(
            &[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
            &Err(DecodeError::Malformed(4)),
        );
        check(&[0x80, 3, 0, 99, 0, 0, 0, 1, 7], &Ok(Some(Frame::Unknown)));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x2545_f491_u32;
        for _ in 0..20_000 {
            let mut bytes = BytesMut::new();
            for _ in 0..24 {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                bytes.put_u8(state as u8);
            }
            // Mostly well-formed heads, so that the bodies are reached.
            bytes[..2].copy_from_slice(&[0x80, 3]);
            bytes[2] = 0;
            bytes[3] %= 12;
            bytes[5..7].fill(0);
            bytes[7] %= 17;
            while let Ok(Some(_)) = decode(&mut bytes) {}
        }
    }
}
