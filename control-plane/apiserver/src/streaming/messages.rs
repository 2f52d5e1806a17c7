//! WebSocket messages that begin with the number of a channel. Pure but for the socket's type.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{Sink, SinkExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::Connection;
use super::negotiate::Channels;

/// A client's message may be this long; those of all known clients have some 32 KiB.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// How long a client may take to hang up once everything was said.
const HANG_UP_LIMIT: Duration = Duration::from_secs(5);
/// The channel whose messages say that another one is closed, since version 5.
const CLOSE: u8 = 255;

/// An upgraded connection as a WebSocket.
pub(super) type Socket = WebSocketStream<Connection>;

pub(super) async fn socket(connection: Connection) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// Says that all is said. Clients take a goodbye without this code for a failure.
pub(super) async fn goodbye(sink: &mut (impl Sink<Message, Error = Error> + Unpin)) -> Result<(), Error> {
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    };
    sink.send(Message::Close(Some(frame))).await
}

/// Waits a moment for the client to hang up as well: what it still sends would reset the connection, and with it what
/// was sent last.
pub(super) async fn hang_up(reading: impl Future<Output = ()>) {
    // Whoever does not hang up is cut off.
    let _ = tokio::time::timeout(HANG_UP_LIMIT, reading).await;
}

/// What a client's message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Data(u8, Bytes),
    Closed(u8),
    /// A ping, an empty message, or noise.
    Nothing,
    /// The client hangs up.
    End,
}

impl Channels {
    /// Reads a message of the client.
    pub(super) fn read(self, message: Message) -> Said {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Said::End,
            _ => return Said::Nothing,
        };
        let Some((&first, rest)) = bytes.split_first() else {
            return Said::Nothing;
        };
        if self.is_base64 {
            let channel = first.checked_sub(b'0').filter(|channel| *channel < 10);
            return match (channel, STANDARD.decode(rest)) {
                (Some(channel), Ok(data)) => Said::Data(channel, data.into()),
                _ => Said::Nothing,
            };
        }
        match (first, rest) {
            (CLOSE, [channel, ..]) if self.version >= 5 => Said::Closed(*channel),
            _ => Said::Data(first, bytes.slice(1..)),
        }
    }

    /// A message for the client.
    pub(super) fn write(self, channel: u8, data: &[u8]) -> Message {
        if self.is_base64 {
            let mut text = String::with_capacity(2 + data.len() / 3 * 4 + 4);
            text.push(char::from(b'0'.saturating_add(channel)));
            STANDARD.encode_string(data, &mut text);
            return Message::text(text);
        }
        let mut bytes = BytesMut::with_capacity(1 + data.len());
        bytes.put_u8(channel);
        bytes.extend_from_slice(data);
        Message::Binary(bytes.freeze())
    }

    /// The message that closes a channel, where there is one.
    pub(super) fn close(self, channel: u8) -> Option<Message> {
        (self.version >= 5).then(|| Message::Binary(Bytes::copy_from_slice(&[CLOSE, channel])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Channels = Channels {
        version: 4,
        is_base64: false,
    };
    const V5: Channels = Channels {
        version: 5,
        is_base64: false,
    };
    const BASE64: Channels = Channels {
        version: 4,
        is_base64: true,
    };

    #[test]
    fn messages_come_back() {
        for dialect in [V4, V5, BASE64] {
            let read = dialect.read(dialect.write(3, b"data"));
            assert_eq!(read, Said::Data(3, Bytes::from_static(b"data")));
        }
        assert_eq!(BASE64.write(1, b"a"), Message::text("1YQ=="));
    }

    #[test]
    fn only_version_5_closes_channels() {
        let close = V5.close(0).unwrap();
        assert_eq!(V5.read(close.clone()), Said::Closed(0));
        assert_eq!(V4.read(close), Said::Data(255, Bytes::from_static(&[0])));
        assert_eq!(V4.close(0), None);
    }

    #[test]
    fn noise_says_nothing() {
        for message in [
            Message::Binary(Bytes::new()),
            Message::text("x"),
            Message::text("0!"),
            Message::Ping(Bytes::new()),
        ] {
            assert_eq!(BASE64.read(message), Said::Nothing);
        }
        assert_eq!(V4.read(Message::Close(None)), Said::End);
    }
}
