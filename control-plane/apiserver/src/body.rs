//! Bodies of responses: whole, in pieces made on demand, or streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use http_body::{Frame, SizeHint};

use crate::inflight::Permit;

/// Pieces of generated bodies are about this long: large enough for few TLS records, small enough to hold.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// The body of a response.
pub struct Body {
    content: Content,
    /// Held until the body has been read or its reader is gone.
    _permit: Option<Permit>,
}

enum Content {
    Whole(Option<Bytes>),
    Stream(BoxStream<'static, Bytes>),
}

impl Body {
    fn of(content: Content) -> Self {
        Self {
            content,
            _permit: None,
        }
    }

    /// The same body, which gives `permit` back when it ends.
    pub(crate) fn holding(self, permit: Option<Permit>) -> Self {
        Self {
            _permit: permit,
            ..self
        }
    }

    /// A body that is known as a whole.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::of(Content::Whole(Some(bytes.into())))
    }

    /// No body.
    pub fn empty() -> Self {
        Self::of(Content::Whole(None))
    }

    /// A body that is made while the client reads it; nothing runs ahead of the client.
    pub fn stream(pieces: impl futures::Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::of(Content::Stream(pieces.boxed()))
    }

    /// A body whose pieces a function makes one after the other.
    pub fn pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Self::stream(futures::stream::iter(pieces))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(stream) => stream
                .poll_next_unpin(ctx)
                .map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

/// Joins small pieces to larger ones.
pub(crate) struct Coalesced<I> {
    parts: I,
}

impl<I> Coalesced<I> {
    pub(crate) fn new(parts: I) -> Self {
        Self { parts }
    }
}

impl<I: Iterator<Item = Bytes>> Iterator for Coalesced<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let first = self.parts.next()?;
        if first.len() >= CHUNK_BYTES {
            return Some(first);
        }
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        chunk.extend_from_slice(&first);
        while chunk.len() < CHUNK_BYTES
            && let Some(part) = self.parts.next()
        {
            chunk.extend_from_slice(&part);
        }
        Some(chunk.into())
    }
}
