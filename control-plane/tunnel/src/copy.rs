//! Between byte streams and the frames of a channel.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::{Ends, FRAME_BYTES_MAX, Frame};

/// The other end of a stream has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Sends data of any length as frames.
pub async fn send(outgoing: &mpsc::Sender<Frame>, channel: u8, mut data: Bytes) -> Result<(), Gone> {
    while !data.is_empty() {
        let piece = data.split_to(data.len().min(FRAME_BYTES_MAX));
        let sent = outgoing.send(Frame::data(channel, piece)).await;
        sent.map_err(|_| Gone)?;
    }
    Ok(())
}

/// Reads up to one frame's data, none at the end. Cancel safe.
pub async fn read_frame(reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<Bytes> {
    // A buffer is used up before the next is allocated: many small reads share one.
    if buffer.capacity() - buffer.len() < FRAME_BYTES_MAX / 4 {
        buffer.reserve(FRAME_BYTES_MAX);
    }
    let mut limited = reader.take(FRAME_BYTES_MAX as u64);
    limited.read_buf(buffer).await?;
    Ok(buffer.split().freeze())
}

/// Copies a reader into a channel until its end, which closes the channel.
pub async fn from_reader(
    reader: &mut (impl AsyncRead + Unpin),
    outgoing: &mpsc::Sender<Frame>,
    channel: u8,
) -> Result<io::Result<()>, Gone> {
    let mut buffer = BytesMut::new();
    loop {
        match read_frame(reader, &mut buffer).await {
            Ok(data) if data.is_empty() => break,
            Ok(data) => {
                let sent = outgoing.send(Frame::data(channel, data)).await;
                sent.map_err(|_| Gone)?;
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    let closed = outgoing.send(Frame::close(channel)).await;
    closed.map_err(|_| Gone)?;
    Ok(Ok(()))
}

/// How a connection that was carried by a stream ended.
#[derive(Debug)]
pub enum Carried {
    /// Both directions were closed.
    Whole,
    /// The other end of the stream went away in the middle.
    Gone,
    /// The connection failed.
    Failed(io::Error),
}

/// Joins a connection with one channel of a stream until both directions have ended or one side has failed.
///
/// The end of one direction is passed on and leaves the other open.
pub async fn carry(connection: impl AsyncRead + AsyncWrite, ends: Ends, channel: u8) -> Carried {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let Ends {
        outgoing,
        mut incoming,
    } = ends;
    let up = async {
        match from_reader(&mut reader, &outgoing, channel).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Carried::Failed(error)),
            Err(Gone) => Err(Carried::Gone),
        }
    };
    let down = async {
        loop {
            let frame = incoming.recv().await.ok_or(Carried::Gone)?;
            writer.write_all(&frame.data).await.map_err(Carried::Failed)?;
            if frame.close {
                // The other side may have closed all of it already.
                return match writer.shutdown().await {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Carried::Failed(error)),
                    _ => Ok(()),
                };
            }
        }
    };
    match tokio::try_join!(up, down) {
        Ok(((), ())) => Carried::Whole,
        Err(carried) => carried,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_direction_leaves_the_other_open() {
        let (node, mut server) = crate::pair();
        let (pod, mut client) = tokio::io::duplex(64);
        let carried = carry(pod, node, 0);
        let talk = async {
            server.outgoing.send(Frame::data(0, "ask")).await.unwrap();
            server.outgoing.send(Frame::close(0)).await.unwrap();
            let mut asked = String::new();
            client.read_to_string(&mut asked).await.unwrap();
            assert_eq!(asked, "ask");
            client.write_all(b"answer").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(server.incoming.recv().await, Some(Frame::data(0, "answer")));
            assert_eq!(server.incoming.recv().await, Some(Frame::close(0)));
        };
        let (carried, ()) = tokio::join!(carried, talk);
        assert!(matches!(carried, Carried::Whole));
    }

    #[tokio::test]
    async fn a_server_that_goes_ends_the_connection() {
        let (node, server) = crate::pair();
        let (pod, _client) = tokio::io::duplex(64);
        drop(server);
        assert!(matches!(carry(pod, node, 0).await, Carried::Gone));
    }

    #[tokio::test]
    async fn long_data_is_cut_into_frames() {
        let (node, mut server) = crate::pair();
        let data = Bytes::from(vec![7; FRAME_BYTES_MAX + 1]);
        send(&node.outgoing, 1, data).await.unwrap();
        assert_eq!(server.incoming.recv().await.unwrap().data.len(), FRAME_BYTES_MAX);
        assert_eq!(server.incoming.recv().await.unwrap().data.len(), 1);
    }

    #[tokio::test]
    async fn a_reader_ends_its_channel() {
        let (node, mut server) = crate::pair();
        from_reader(&mut &b"text"[..], &node.outgoing, 2)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(server.incoming.recv().await, Some(Frame::data(2, "text")));
        assert_eq!(server.incoming.recv().await, Some(Frame::close(2)));
    }
}
