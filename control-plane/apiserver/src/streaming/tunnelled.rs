//! A byte stream inside WebSocket messages, for SPDY where a proxy lets only WebSockets through.

use std::io;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::Connection;
use super::messages::socket;

/// The bytes of a connection's binary messages.
pub(super) async fn transport(connection: Connection) -> impl AsyncRead + AsyncWrite {
    let (sink, stream) = socket(connection).await.split();
    let sink = sink
        .sink_map_err(io::Error::other)
        .with(async |bytes: Bytes| Ok::<_, io::Error>(Message::Binary(bytes)));
    let pieces = stream
        .take_while(|message| std::future::ready(!matches!(message, Ok(Message::Close(_)))))
        .filter_map(|message| {
            let piece = match message {
                Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                Ok(_) => None,
                Err(error) => Some(Err(io::Error::other(error))),
            };
            std::future::ready(piece)
        });
    let writer = SinkWriter::new(CopyToBytes::new(Box::pin(sink)));
    tokio::io::join(StreamReader::new(pieces), writer)
}
