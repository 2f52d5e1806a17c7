//! One forwarded connection: a TCP stream at this end, a WebSocket with two channels to the server.

use anyhow::{Context as _, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Cluster, Socket, with_query};

const DATA: u8 = 0;
const ERROR: u8 = 1;
const CLOSE: u8 = 255;
/// Read and sent at once.
const SEND_BYTES: usize = 32 << 10;

/// The pod whose ports are forwarded.
pub(super) struct Pod {
    pub(super) cluster: Cluster,
    /// Of its `portforward` subresource.
    pub(super) path: String,
}

impl Pod {
    /// Carries a connection to a port of the pod until the pod closes it.
    pub(super) async fn carry(&self, connection: TcpStream, port: u16) -> anyhow::Result<()> {
        // Small writes must not wait; a connection that refuses is as good as closed.
        let _ = connection.set_nodelay(true);
        let path = with_query(&self.path, &[("ports", Some(&port.to_string()))]);
        let upgraded = self.cluster.upgrade(&path).await?;
        let can_close = upgraded.supports_stream_close();
        let (sink, stream) = upgraded.into_stream().split();
        let (reader, writer) = connection.into_split();
        // Sending never ends a connection: the pod may have more to say.
        tokio::select! {
            ended = receive(stream, writer) => ended,
            failed = send(sink, reader, can_close) => failed,
        }
    }
}

/// Sends what comes from the local end; returns only if that breaks.
async fn send(
    mut sink: SplitSink<Socket, Message>,
    mut reader: OwnedReadHalf,
    can_close: bool,
) -> anyhow::Result<()> {
    let mut buffer = BytesMut::with_capacity(2 * SEND_BYTES);
    loop {
        buffer.reserve(1 + SEND_BYTES);
        buffer.put_u8(DATA);
        let count = reader
            .read_buf(&mut buffer)
            .await
            .context("the local connection broke")?;
        let message = match count {
            0 if can_close => Bytes::from_static(&[CLOSE, DATA]),
            // Without a word for the end of one direction the other is left open.
            0 => break,
            _ => buffer.split().freeze(),
        };
        let sent = sink.send(Message::Binary(message)).await;
        // Why the server takes no more is told by what it sends.
        if sent.is_err() || count == 0 {
            break;
        }
    }
    std::future::pending().await
}

/// Hands on what the pod sends, until it closes the connection or the server says what went wrong.
async fn receive(mut stream: SplitStream<Socket>, mut writer: OwnedWriteHalf) -> anyhow::Result<()> {
    // The first message of each channel only names the port.
    let mut has_begun = [false; 2];
    while let Some(message) = stream.next().await {
        let bytes = match message.context("the connection to the server broke off")? {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => break,
            _ => continue,
        };
        let Some((&channel, data)) = bytes.split_first() else {
            continue;
        };
        match channel {
            CLOSE => break,
            DATA | ERROR if !std::mem::replace(&mut has_begun[usize::from(channel)], true) => {}
            DATA => writer
                .write_all(data)
                .await
                .context("the local connection broke")?,
            ERROR => bail!("{}", String::from_utf8_lossy(data)),
            _ => {}
        }
    }
    writer.shutdown().await.context("the local connection broke")
}
