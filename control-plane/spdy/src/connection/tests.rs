//! The server's side against a client made of the codec alone.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::frame::{decode, encode};
use crate::headers::{Packer, Unpacker};

struct Client {
    transport: DuplexStream,
    buffer: BytesMut,
    packer: Packer,
    unpacker: Unpacker,
}

impl Client {
    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        encode(&frame, &mut bytes);
        self.transport.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, stream: StreamId, kind: &str) {
        let block = self.packer.pack(&Headers::new().with("streamtype", kind));
        let frame = Frame::Open {
            stream,
            fin: false,
            unidirectional: false,
            block,
        };
        self.send(frame).await;
    }

    async fn data(&mut self, stream: StreamId, text: &'static str, fin: bool) {
        let data = Bytes::from_static(text.as_bytes());
        self.send(Frame::Data { stream, fin, data }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = decode(&mut self.buffer).unwrap() {
                if let Frame::Reply { block, .. } = &frame {
                    self.unpacker.unpack(block).unwrap();
                }
                return Some(frame);
            }
            if self.transport.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn expect(&mut self, expected: &str) {
        let found = match self.next().await {
            None => "end".to_owned(),
            Some(Frame::Reply { stream, .. }) => format!("reply {stream}"),
            Some(Frame::Data { stream, fin, data }) => {
                let end = if fin { " fin" } else { "" };
                format!("data {stream} {}{end}", String::from_utf8_lossy(&data))
            }
            Some(Frame::Reset { stream, code }) => format!("reset {stream} {code}"),
            Some(Frame::Ping { id }) => format!("ping {id}"),
            Some(Frame::GoAway { last_stream }) => format!("goaway {last_stream}"),
            Some(Frame::WindowUpdate { stream, delta }) => format!("grant {stream} {delta}"),
            Some(other) => format!("{other:?}"),
        };
        assert_eq!(found, expected);
    }
}

fn client() -> (Client, DuplexStream) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let client = Client {
        transport: near,
        buffer: BytesMut::new(),
        packer: Packer::new(),
        unpacker: Unpacker::new(),
    };
    (client, far)
}

/// Sends back what comes, on each stream, until the client says that there is no more.
async fn echo(mut streams: NewStreams) -> usize {
    let mut count = 0;
    while let Some(incoming) = streams.next().await {
        if incoming.headers().get("streamType") != Some("echo") {
            incoming.refuse();
            continue;
        }
        let (mut sender, mut receiver) = incoming.accept();
        while let Ok(Some(data)) = receiver.recv().await {
            if sender.send(data).await.is_err() {
                break;
            }
        }
        count += 1;
        // A stream that the client has reset cannot be finished.
        let _ = sender.finish().await;
    }
    count
}

#[tokio::test]
async fn streams_are_opened_answered_and_ended() {
    let (mut client, far) = client();
    let talk = async {
        client.open(1, "echo").await;
        client.expect("reply 1").await;
        client.data(1, "one", false).await;
        client.expect("data 1 one").await;
        client.data(1, "two", true).await;
        client.expect("data 1 two").await;
        client.expect("data 1  fin").await;
        client.open(3, "other").await;
        client.expect("reset 3 3").await;
        client.open(2, "echo").await;
        client.expect("reset 2 1").await;
        client.send(Frame::Ping { id: 7 }).await;
        client.expect("ping 7").await;
        client.send(Frame::GoAway { last_stream: 0 }).await;
        client.expect("goaway 3").await;
        client.expect("end").await;
        drop(client);
    };
    let (served, ()) = tokio::join!(serve(far, echo), talk);
    assert_eq!(served.unwrap(), Some(1));
}

#[tokio::test]
async fn what_was_taken_is_granted_again() {
    let (mut client, far) = client();
    let talk = async {
        client.open(1, "echo").await;
        client.expect("reply 1").await;
        let data = Bytes::from(vec![b'x'; 20 << 10]);
        client
            .send(Frame::Data {
                stream: 1,
                fin: false,
                data,
            })
            .await;
        let mut grants = Vec::new();
        while grants.len() < 2 {
            if let Some(Frame::WindowUpdate { stream, delta }) = client.next().await {
                grants.push((stream, delta));
            }
        }
        assert_eq!(grants, [(0, 20 << 10), (1, 20 << 10)]);
        drop(client);
    };
    let (served, ()) = tokio::join!(serve(far, echo), talk);
    assert!(matches!(served, Ok(None) | Err(ConnectionError::Transport(_))));
}

#[tokio::test]
async fn a_client_that_keeps_windows_is_not_sent_more() {
    let (mut client, far) = client();
    let program = |mut streams: NewStreams| async move {
        let (mut sender, _receiver) = streams.next().await.unwrap().accept();
        sender.send(Bytes::from_static(b"0123456789")).await.unwrap();
        sender.finish().await.unwrap();
    };
    let talk = async {
        let window = Frame::Settings {
            initial_window: Some(4),
        };
        client.send(window).await;
        client.open(1, "any").await;
        client.expect("reply 1").await;
        client.expect("data 1 0123").await;
        client.send(Frame::WindowUpdate { stream: 1, delta: 6 }).await;
        client.expect("data 1 456789").await;
        client.expect("data 1  fin").await;
        client.expect("goaway 1").await;
        drop(client);
    };
    let (served, ()) = tokio::join!(serve(far, program), talk);
    assert_eq!(served.unwrap(), Some(()));
}

#[tokio::test]
async fn a_reset_reaches_both_halves() {
    let (mut client, far) = client();
    let program = |mut streams: NewStreams| async move {
        let (mut sender, mut receiver) = streams.next().await.unwrap().accept();
        assert_eq!(receiver.recv().await, Err(Reset));
        assert_eq!(sender.send(Bytes::from_static(b"x")).await, Err(Reset));
    };
    let talk = async {
        client.open(1, "any").await;
        client.expect("reply 1").await;
        client.send(Frame::Reset { stream: 1, code: 5 }).await;
        client.expect("goaway 1").await;
        drop(client);
    };
    let (served, ()) = tokio::join!(serve(far, program), talk);
    assert_eq!(served.unwrap(), Some(()));
}

#[tokio::test]
async fn the_program_ends_with_the_connection() {
    let (client, far) = client();
    drop(client);
    let forever = |_streams| std::future::pending::<()>();
    assert!(matches!(serve(far, forever).await, Ok(None)));
}

#[tokio::test]
async fn noise_ends_the_connection_with_a_reason() {
    let (mut client, far) = client();
    client
        .transport
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    // As a data frame on a strange stream it is harmless, until its length is too much.
    let forever = |_streams| std::future::pending::<()>();
    let refused = serve(far, forever).await.unwrap_err();
    assert!(matches!(refused, ConnectionError::Frame(DecodeError::TooLong(_))));
}
