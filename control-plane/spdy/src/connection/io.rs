//! The two directions of a connection's bytes.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::shared::{Event, Shared, Urgent};
use super::{ConnectionError, Incoming};
use crate::frame::{self, Frame};
use crate::headers::{Headers, Packer, Unpacker};

/// Read at once.
const READ_BYTES: usize = 64 << 10;

/// Reads until the client hangs up. A stream whose data is not taken holds up the whole connection.
pub(super) async fn read(
    mut reader: impl AsyncRead + Unpin,
    shared: &Arc<Shared>,
    new_streams: mpsc::Sender<Incoming>,
) -> Result<(), ConnectionError> {
    let mut new_streams = Some(new_streams);
    let mut unpacker = Unpacker::new();
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        while let Some(frame) = frame::decode(&mut buffer)? {
            take(frame, shared, &mut unpacker, &mut new_streams).await?;
        }
        buffer.reserve(READ_BYTES);
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn take(
    frame: Frame,
    shared: &Arc<Shared>,
    unpacker: &mut Unpacker,
    new_streams: &mut Option<mpsc::Sender<Incoming>>,
) -> Result<(), ConnectionError> {
    match frame {
        Frame::Open {
            stream, fin, block, ..
        } => {
            // Every block changes the decompressor, so even those of refused streams are read.
            let headers = unpacker.unpack(&block)?;
            if let Some(incoming) = shared.open(stream, fin, headers) {
                let refused = match new_streams {
                    Some(new_streams) => new_streams.send(incoming).await.err().map(|refused| refused.0),
                    None => Some(incoming),
                };
                if let Some(incoming) = refused {
                    incoming.refuse();
                }
            }
        }
        Frame::MoreHeaders { stream, fin, block } | Frame::Reply { stream, fin, block } => {
            unpacker.unpack(&block)?;
            if fin {
                end(shared, stream).await;
            }
        }
        Frame::Data { stream, fin, data } => {
            // Data of a stream that is gone is nobody's.
            if let Some(events) = shared.events(stream).filter(|_| !data.is_empty()) {
                let length = data.len();
                if events.send(Event::Data(data)).await.is_err() {
                    shared.grant(stream, length);
                }
            }
            if fin {
                end(shared, stream).await;
            }
        }
        Frame::Reset { stream, .. } => shared.client_reset(stream),
        Frame::Settings { initial_window } => shared.settings(initial_window),
        Frame::Ping { id } => shared.pong(id),
        // Streams that are open go on.
        Frame::GoAway { .. } => *new_streams = None,
        Frame::WindowUpdate { stream, delta } => shared.window_update(stream, delta),
        Frame::Unknown => {}
    }
    Ok(())
}

async fn end(shared: &Shared, stream: u32) {
    if let Some(events) = shared.events(stream) {
        // With the receiver gone there is nobody to tell.
        let _ = events.send(Event::End).await;
    }
    shared.client_finished(stream);
}

/// Writes what is sent until nothing more can be, says goodbye and closes this direction.
pub(super) async fn write(
    mut writer: impl AsyncWrite + Unpin,
    shared: &Shared,
    mut queue: mpsc::Receiver<Frame>,
) -> Result<(), ConnectionError> {
    let mut packer = Packer::new();
    let mut buffer = BytesMut::new();
    loop {
        // Both arms only wait; a frame that was received is written.
        let frame = tokio::select! {
            () = shared.urgent.notified() => None,
            frame = queue.recv() => match frame {
                Some(frame) => Some(frame),
                None => break,
            },
        };
        put_urgent(shared, &mut packer, &mut buffer);
        if let Some(frame) = frame {
            frame::encode(&frame, &mut buffer);
            // What waits behind it goes with the same write, as far as it is not too much.
            while buffer.len() < READ_BYTES
                && let Ok(frame) = queue.try_recv()
            {
                frame::encode(&frame, &mut buffer);
            }
        }
        writer.write_all_buf(&mut buffer).await?;
        writer.flush().await?;
    }
    put_urgent(shared, &mut packer, &mut buffer);
    let last_stream = shared.last_stream();
    frame::encode(&Frame::GoAway { last_stream }, &mut buffer);
    writer.write_all_buf(&mut buffer).await?;
    Ok(writer.shutdown().await?)
}

fn put_urgent(shared: &Shared, packer: &mut Packer, buffer: &mut BytesMut) {
    for urgent in shared.take_urgent() {
        let frame = match urgent {
            Urgent::Frame(frame) => frame,
            Urgent::Reply(stream) => Frame::Reply {
                stream,
                fin: false,
                block: packer.pack(&Headers::new()),
            },
        };
        frame::encode(&frame, buffer);
    }
}
