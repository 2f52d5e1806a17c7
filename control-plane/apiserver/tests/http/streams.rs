//! `exec`, `attach` and `portforward` in each of their protocols, against a node that sends back what it gets.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use flotilla_apiserver::{Peer, User};
use flotilla_spdy::Headers;
use flotilla_spdy::frame::{Frame, StreamId, decode, encode};
use flotilla_spdy::headers::{Packer, Unpacker};
use futures::{SinkExt, StreamExt};
use http::Request;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::task::TaskTracker;

use crate::cluster::{Cluster, limited};

const POD: &str = "/api/v1/namespaces/default/pods/web";

/// A cluster with a pod on `node-1`, and a connection to its server.
async fn connect() -> (Cluster, TcpStream) {
    let cluster = Cluster::start().await;
    for (name, node) in [("web", "node-1"), ("lost", "node-2")] {
        let pod = json!({"metadata": {"name": name}, "spec": {
            "nodeName": node,
            "containers": [{"name": "a", "image": "demo:v1"}, {"name": "b", "image": "demo:v1"}],
        }});
        cluster.create("/api/v1/namespaces/default/pods", pod).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = cluster.server.clone();
    TaskTracker::new().spawn(async move {
        let (stream, remote) = listener.accept().await.unwrap();
        let service = service_fn(move |request| {
            let server = server.clone();
            let user = Some(User {
                name: "admin".into(),
                groups: vec!["system:masters".into()],
            });
            let answer: futures::future::BoxFuture<'static, _> =
                Box::pin(
                    async move { Ok::<_, Infallible>(server.handle(request, Peer { user, remote }).await) },
                );
            answer
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connection.with_upgrades().await.ok();
    });
    (cluster, TcpStream::connect(address).await.unwrap())
}

type Socket = WebSocketStream<TcpStream>;

async fn websocket(stream: TcpStream, path: &str, protocol: &str) -> Result<Socket, (u16, String)> {
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    if !protocol.is_empty() {
        let header = protocol.parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", header);
    }
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let status: Value = serde_json::from_slice(&body).unwrap();
            let message = status["message"].as_str().unwrap_or_default().to_owned();
            Err((response.status().as_u16(), message))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn send(socket: &mut Socket, bytes: &[u8]) {
    let message = Message::Binary(Bytes::copy_from_slice(bytes));
    socket.send(message).await.unwrap();
}

async fn next(socket: &mut Socket) -> Option<Vec<u8>> {
    match limited(socket.next()).await? {
        Ok(Message::Close(_)) => None,
        Ok(message) => Some(message.into_data().to_vec()),
        Err(error) => panic!("{error}"),
    }
}

fn ended(message: &[u8]) -> Value {
    assert_eq!(message[0], 3);
    serde_json::from_slice(&message[1..]).unwrap()
}

#[tokio::test]
async fn a_command_runs_over_websockets_and_its_input_can_end() {
    let (_cluster, stream) = connect().await;
    let path = format!("{POD}/exec?command=cat&container=a&stdin=true&stdout=true");
    let mut socket = websocket(stream, &path, "v5.channel.k8s.io").await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), [1], "the connection stands");
    send(&mut socket, b"\0hello").await;
    assert_eq!(next(&mut socket).await.unwrap(), b"\x01hello");
    send(&mut socket, &[255, 0]).await;
    let status = ended(&next(&mut socket).await.unwrap());
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    assert_eq!(next(&mut socket).await, None);
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let (_cluster, stream) = connect().await;
    let path = format!("{POD}/attach?container=a&stdin=true&stdout=true&tty=true");
    let mut socket = websocket(stream, &path, "v4.channel.k8s.io").await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), [1]);
    send(&mut socket, b"\x04{\"Width\":80,\"Height\":24}\n").await;
    assert_eq!(
        next(&mut socket).await.unwrap(),
        b"\x02{\"Width\":80,\"Height\":24}"
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_the_upgrade() {
    let exec = "exec?command=cat&stdout=true";
    let expectations = [
        (
            format!("{POD}/{exec}"),
            400,
            "a container name must be specified for pod web, choose one of: [a b]",
        ),
        (
            format!("{POD}/{exec}&container=x"),
            400,
            "container x is not valid for pod web",
        ),
        (
            format!("{POD}/exec?stdout=true&container=a"),
            400,
            "you must specify at least one command for the container",
        ),
        (
            "/api/v1/namespaces/default/pods/none/exec".into(),
            404,
            "pods \"none\" not found",
        ),
        (
            format!("/api/v1/namespaces/default/pods/lost/{exec}&container=a"),
            503,
            "node \"node-2\" has no connection to this server",
        ),
    ];
    for (path, code, message) in expectations {
        let (_cluster, stream) = connect().await;
        let refused = websocket(stream, &path, "v5.channel.k8s.io").await.err().unwrap();
        assert_eq!(refused, (code, message.to_owned()));
    }
    let (cluster, _) = connect().await;
    let plain = cluster.get(&format!("{POD}/{exec}&container=a")).await;
    assert!(plain.refused(400).starts_with("Upgrade request required"));
}

#[tokio::test]
async fn ports_are_forwarded_over_websocket_channels() {
    let (_cluster, stream) = connect().await;
    let path = format!("{POD}/portforward?ports=80,81");
    let mut socket = websocket(stream, &path, "v4.channel.k8s.io").await.unwrap();
    send(&mut socket, b"\0hello").await;
    let mut found = Vec::new();
    while found.len() < 6 {
        found.push(next(&mut socket).await.unwrap());
    }
    found.sort();
    let refused = b"\x03error forwarding port 81 to pod web: refused".to_vec();
    let expected = [
        b"\0P\0".to_vec(),
        b"\0hello".to_vec(),
        b"\x01P\0".to_vec(),
        b"\x02Q\0".to_vec(),
        b"\x03Q\0".to_vec(),
        refused,
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn one_direction_of_a_forwarded_port_can_end() {
    let (_cluster, stream) = connect().await;
    let path = format!("{POD}/portforward?ports=80");
    let mut socket = websocket(stream, &path, "v5.channel.k8s.io").await.unwrap();
    send(&mut socket, b"\0hello").await;
    send(&mut socket, &[255, 0]).await;
    for expected in [&b"\0P\0"[..], b"\x01P\0", b"\0hello", b"\xff\0"] {
        assert_eq!(next(&mut socket).await.unwrap(), expected);
    }
    assert_eq!(next(&mut socket).await, None);
}

/// A SPDY client made of the codec alone.
struct Spdy<T> {
    transport: T,
    buffer: BytesMut,
    packer: Packer,
    unpacker: Unpacker,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Spdy<T> {
    fn new(transport: T) -> Self {
        Self {
            transport,
            buffer: BytesMut::new(),
            packer: Packer::new(),
            unpacker: Unpacker::new(),
        }
    }

    /// Opens a stream and waits for the answer, as Kubernetes' clients do.
    async fn open(&mut self, stream: StreamId, headers: &[(&str, &str)]) {
        let headers = headers
            .iter()
            .fold(Headers::new(), |headers, (name, value)| headers.with(name, value));
        let block = self.packer.pack(&headers);
        let frame = Frame::Open {
            stream,
            fin: false,
            unidirectional: false,
            block,
        };
        self.send(frame).await;
        match self.next().await {
            Some(Frame::Reply {
                stream: replied,
                block,
                ..
            }) => {
                assert_eq!(replied, stream);
                self.unpacker.unpack(&block).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }

    async fn data(&mut self, stream: StreamId, data: &'static [u8], fin: bool) {
        let data = Bytes::from_static(data);
        self.send(Frame::Data { stream, fin, data }).await;
    }

    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        encode(&frame, &mut bytes);
        self.transport.write_all(&bytes).await.unwrap();
        self.transport.flush().await.unwrap();
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            if limited(self.transport.read_buf(&mut self.buffer)).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// All data by stream until the server says goodbye.
    async fn rest(&mut self) -> Vec<(StreamId, String)> {
        let mut found: Vec<(StreamId, String)> = Vec::new();
        while let Some(frame) = self.next().await {
            let Frame::Data { stream, data, .. } = frame else {
                continue;
            };
            let text = String::from_utf8(data.to_vec()).unwrap();
            match found.iter_mut().find(|(known, _)| *known == stream) {
                Some((_, known)) => known.push_str(&text),
                None => found.push((stream, text)),
            }
        }
        found.sort();
        found
    }
}

/// Upgrades a connection to SPDY; the version that the server has chosen.
async fn spdy(mut stream: TcpStream, path: &str, versions: &[&str]) -> (Spdy<TcpStream>, String) {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n");
    for version in versions {
        request += &format!("x-stream-protocol-version: {version}\r\n");
    }
    stream
        .write_all(format!("{request}\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(limited(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let chosen = head
        .lines()
        .find_map(|line| line.strip_prefix("x-stream-protocol-version: "));
    (Spdy::new(stream), chosen.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_command_runs_over_spdy() {
    for (versions, chosen, status) in [
        (
            &["v9", "v4.channel.k8s.io"][..],
            "v4.channel.k8s.io",
            "NonZeroExitCode",
        ),
        (
            &["channel.k8s.io"],
            "channel.k8s.io",
            "command terminated with non-zero exit code: exit status 3",
        ),
        (&[], "", "exit status 3"),
    ] {
        let (_cluster, stream) = connect().await;
        let path = format!("{POD}/exec?command=cat&container=a&stdin=true&stdout=true");
        let (mut client, version) = spdy(stream, &path, versions).await;
        assert_eq!(version, chosen);
        for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
            client.open(stream, &[("streamType", kind)]).await;
        }
        client.data(3, b"hello", true).await;
        let found = client.rest().await;
        assert_eq!(found[2], (5, "hello".to_owned()));
        assert!(found[0].0 == 1 && found[0].1.contains(status), "{found:?}");
    }
}

async fn forward<T: AsyncRead + AsyncWrite + Unpin>(mut client: Spdy<T>) {
    for (first, port, id) in [(1, "80", "0"), (5, "81", "1")] {
        let headers = |kind| [("streamtype", kind), ("port", port), ("requestid", id)];
        client.open(first, &headers("error")).await;
        client.data(first, b"", true).await;
        client.open(first + 2, &headers("data")).await;
    }
    client.data(3, b"hello", true).await;
    client.send(Frame::GoAway { last_stream: 0 }).await;
    let found = client.rest().await;
    let refused = "error forwarding port 81 to pod web: refused".to_owned();
    assert_eq!(found, [(1, String::new()), (3, "hello".to_owned()), (5, refused)]);
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy() {
    let (_cluster, stream) = connect().await;
    let (client, version) = spdy(stream, &format!("{POD}/portforward"), &["portforward.k8s.io"]).await;
    assert_eq!(version, "portforward.k8s.io");
    forward(client).await;
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_inside_a_websocket() {
    let (_cluster, stream) = connect().await;
    let path = format!("{POD}/portforward");
    let socket = websocket(stream, &path, "SPDY/3.1+portforward.k8s.io")
        .await
        .unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    TaskTracker::new().spawn(async move {
        let (mut sink, mut source) = socket.split();
        let (mut reader, mut writer) = tokio::io::split(far);
        let down = async {
            while let Some(Ok(Message::Binary(bytes))) = source.next().await {
                writer.write_all(&bytes).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        };
        let up = async {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                let message = Message::Binary(Bytes::copy_from_slice(&buffer[..count]));
                sink.send(message).await.unwrap();
            }
        };
        tokio::select! {
            () = down => {}
            () = up => {}
        }
    });
    forward(Spdy::new(near)).await;
}

#[tokio::test]
async fn streams_end_when_the_server_drains() {
    let (cluster, stream) = connect().await;
    let path = format!("{POD}/attach?container=a&stdout=true");
    let mut socket = websocket(stream, &path, "v5.channel.k8s.io").await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), [1]);
    cluster.drain.cancel();
    assert!(!matches!(
        limited(socket.next()).await,
        Some(Ok(Message::Binary(_)))
    ));
}

#[tokio::test]
async fn an_answer_to_a_plain_request_is_a_status() {
    let (_cluster, stream) = connect().await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    TaskTracker::new().spawn(connection);
    let request = Request::get(format!("{POD}/portforward")).header("host", "x");
    let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 400);
}

#[tokio::test]
async fn the_log_of_a_deleted_pod_comes_from_the_node_that_keeps_it() {
    let cluster = Cluster::start().await;
    let path =
        |name: &str, query: &str| format!("/api/v1/namespaces/default/pods/{name}/log?deleted=true{query}");
    let answer = cluster.get(&path("gone", "&tailLines=5&previous=true")).await;
    assert_eq!(answer.headers["content-type"], "text/plain");
    let asked = answer.expect(200);
    assert_eq!(asked["uid"], "uid-gone");
    assert_eq!(
        (asked["container"].as_str(), asked["tail_lines"].as_u64()),
        (Some("a"), Some(5))
    );
    let none = cluster.get(&path("other", "")).await.refused(404);
    assert!(none.ends_with("there are logs of gone"), "{none}");
    let followed = cluster.get(&path("gone", "&follow=true")).await.refused(400);
    assert!(followed.contains("cannot be followed"), "{followed}");
}
