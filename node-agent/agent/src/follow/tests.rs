//! Following against servers that speak real gRPC.

mod gate;

use std::collections::BTreeSet;

use flotilla_proto::node::nodes_server::{Nodes, NodesServer};
use flotilla_proto::node::{
    AgentMessage, DiskReport, DiskReported, FollowBookmark, FollowGone, FollowList, FollowObject,
    JoinRequest, JoinResponse, RenewRequest, RenewResponse, ServerMessage, StreamFrame, TokenRequest,
    TokenResponse, follow_event::Kind,
};
use k8s_openapi::api::core::v1::Service;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::identity::Connector;

/// Longer than any of these tests may take, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

type Down = mpsc::Sender<Result<FollowEvent, Status>>;

/// Hands each stream to the test.
struct FakeServer {
    streams: mpsc::Sender<(FollowRequest, Down)>,
}

#[tonic::async_trait]
impl Nodes for FakeServer {
    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type BlobStream = futures::stream::BoxStream<'static, Result<flotilla_proto::node::BlobChunk, Status>>;

    async fn blob(
        &self,
        _: Request<flotilla_proto::node::BlobRequest>,
    ) -> Result<Response<Self::BlobStream>, Status> {
        Err(Status::not_found("there is no other node"))
    }

    async fn disk(&self, _: Request<DiskReport>) -> Result<Response<DiskReported>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn token(&self, _: Request<TokenRequest>) -> Result<Response<TokenResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type SessionStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn session(
        &self,
        _: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type StreamStream = ReceiverStream<Result<StreamFrame, Status>>;

    async fn stream(
        &self,
        _: Request<Streaming<StreamFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    type FollowStream = ReceiverStream<Result<FollowEvent, Status>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let (down, events) = mpsc::channel(16);
        let sent = self.streams.send((request.into_inner(), down)).await;
        sent.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(events)))
    }
}

struct TestServer {
    address: String,
    streams: mpsc::Receiver<(FollowRequest, Down)>,
    tracker: TaskTracker,
}

/// One stream, as the test plays the server.
struct Stream {
    revision: u64,
    down: Down,
}

impl TestServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (streams, receiver) = mpsc::channel(4);
        let tracker = TaskTracker::new();
        tracker.spawn(
            Server::builder()
                .add_service(NodesServer::new(FakeServer { streams }))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self {
            address,
            streams: receiver,
            tracker,
        }
    }

    async fn stream(&mut self) -> Stream {
        let _ = &self.tracker;
        let (request, down) = tokio::time::timeout(LIMIT, self.streams.recv())
            .await
            .expect("nobody follows")
            .unwrap();
        assert_eq!(
            (request.group.as_str(), request.resource.as_str()),
            ("", "services")
        );
        Stream {
            revision: request.revision,
            down,
        }
    }
}

impl Stream {
    async fn say(&self, kind: Kind) {
        self.down
            .send(Ok(FollowEvent { kind: Some(kind) }))
            .await
            .unwrap();
    }

    async fn object(&self, name: &str, revision: u64) {
        let object_json = format!(
            r#"{{"metadata":{{"resourceVersion":"{revision}","name":"{name}","namespace":"default"}},"spec":{{}}}}"#
        );
        self.say(Kind::Object(FollowObject {
            object_json: object_json.into(),
        }))
        .await;
    }

    async fn list(&self, objects: &[(&str, u64)], revision: u64) {
        self.say(Kind::List(FollowList {})).await;
        for (name, revision) in objects {
            self.object(name, *revision).await;
        }
        self.say(Kind::Bookmark(FollowBookmark { revision })).await;
    }

    async fn gone(&self, name: &str, revision: u64) {
        self.say(Kind::Gone(FollowGone {
            namespace: "default".into(),
            name: name.into(),
            revision,
        }))
        .await;
    }
}

/// What the handlers of one agent are told, as words.
struct Agent {
    told: mpsc::UnboundedReceiver<String>,
    mirror: Mirror<String>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Agent {
    fn start(folder: &std::path::Path, addresses: &[&str]) -> Self {
        Self::start_when(folder, addresses, None)
    }

    fn start_when(folder: &std::path::Path, addresses: &[&str], gate: Option<watch::Receiver<bool>>) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let mut follow = Follow::new(folder.to_owned());
        let handler = move |change: &Change<Service>| {
            let word = match change {
                Change::Applied(service) => {
                    let meta = &service.metadata;
                    format!(
                        "{}@{}",
                        meta.name.as_deref().unwrap_or_default(),
                        meta.resource_version.as_deref().unwrap_or_default()
                    )
                }
                Change::Gone { name, .. } => format!("-{name}"),
                Change::Synced => "synced".to_owned(),
            };
            // The test may have heard enough.
            let _ = tell.send(word);
        };
        let mirror = match gate {
            Some(gate) => {
                follow.on_when::<Service>(gate, handler);
                Mirror::default()
            }
            None => {
                follow.on::<Service>(handler);
                follow.mirror(|service: &Arc<Service>| service.metadata.name.clone())
            }
        };
        follow.restore();
        let known: BTreeSet<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        let (known_tx, known) = watch::channel(known);
        let plain: Connector = Arc::new(|address: &str| {
            Endpoint::from_shared(format!("http://{address}"))
                .unwrap()
                .connect_lazy()
        });
        let (connectors_tx, connectors) = watch::channel(plain);
        let servers = Servers::new("n1", "10.0.0.1".parse().unwrap(), known, connectors);
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        follow.start(&Arc::new(servers), &tracker, &shutdown);
        let ended = shutdown.clone();
        tracker.spawn(async move {
            ended.cancelled().await;
            drop((known_tx, connectors_tx));
        });
        Self {
            told,
            mirror,
            shutdown,
            tracker,
        }
    }

    /// What is told up to and with this word.
    async fn until(&mut self, last: &str) -> String {
        let mut all = Vec::new();
        loop {
            let word = tokio::time::timeout(LIMIT, self.told.recv()).await;
            let word = word
                .unwrap_or_else(|_| panic!("{last} is not told after {all:?}"))
                .unwrap();
            all.push(word.clone());
            if word == last {
                return all.join(" ");
            }
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[tokio::test]
async fn objects_are_told_once_in_order_and_those_that_a_list_leaves_out_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::start().await;
    let mut agent = Agent::start(folder.path(), &[&server.address]);
    let stream = server.stream().await;
    assert_eq!(stream.revision, 0);
    stream.list(&[("a", 3), ("b", 4)], 10).await;
    assert_eq!(agent.until("synced").await, "a@3 b@4 synced");
    stream.object("a", 11).await;
    stream.object("a", 9).await;
    stream.gone("b", 12).await;
    assert_eq!(agent.until("-b").await, "a@11 -b");
    stream.list(&[("c", 5)], 20).await;
    assert_eq!(agent.until("synced").await, "c@5 -a synced");
    assert_eq!(agent.mirror.list("default"), [Arc::new("c".to_owned())]);
    assert!(agent.mirror.get("default", "c").is_some() && agent.mirror.list("other").is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn a_restarted_agent_knows_what_it_knew_before_any_server_answers_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::start().await;
    let mut agent = Agent::start(folder.path(), &[&server.address]);
    let stream = server.stream().await;
    stream.list(&[("a", 3), ("b", 4)], 10).await;
    stream.object("b", 11).await;
    stream.gone("a", 12).await;
    agent.until("-a").await;
    agent.stop().await;
    let mut again = Agent::start(folder.path(), &[]);
    assert_eq!(again.until("synced").await, "b@11 synced");
    again.stop().await;
    let mut third = Agent::start(folder.path(), &[&server.address]);
    let stream = server.stream().await;
    assert_eq!(
        stream.revision, 10,
        "bookmarks are kept now and then only; what comes twice is told once"
    );
    stream.object("b", 11).await;
    stream.gone("a", 12).await;
    stream.object("c", 13).await;
    assert_eq!(third.until("c@13").await, "b@11 synced c@13");
    third.stop().await;
}

#[tokio::test]
async fn the_loss_of_a_server_leads_to_another_one_which_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (TestServer::start().await, TestServer::start().await);
    let mut agent = Agent::start(folder.path(), &[&one.address, &two.address]);
    let (stream, other) = tokio::select! {
        stream = one.stream() => (stream, &mut two),
        stream = two.stream() => (stream, &mut one),
    };
    stream.list(&[("a", 3)], 10).await;
    agent.until("synced").await;
    stream
        .down
        .send(Err(Status::unavailable("going down")))
        .await
        .unwrap();
    let stream = other.stream().await;
    assert_eq!(stream.revision, 10);
    stream.object("a", 14).await;
    assert_eq!(agent.until("a@14").await, "a@14");
    agent.stop().await;
}

#[tokio::test]
async fn a_list_that_broke_off_takes_nothing_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::start().await;
    let mut agent = Agent::start(folder.path(), &[&server.address]);
    server.stream().await.list(&[("a", 3), ("b", 4)], 10).await;
    agent.until("synced").await;
    let stream = server.stream().await;
    stream.say(Kind::List(FollowList {})).await;
    stream.object("a", 12).await;
    agent.until("a@12").await;
    drop(stream);
    let stream = server.stream().await;
    stream.say(Kind::Bookmark(FollowBookmark { revision: 12 })).await;
    stream.object("c", 13).await;
    assert_eq!(agent.until("c@13").await, "c@13");
    assert!(agent.mirror.get("default", "b").is_some());
    agent.stop().await;
}

#[test]
fn a_torn_or_foreign_file_is_cut_or_begun_anew() {
    use super::cache::{Cache, Place};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services");
    let json = |name: &str, revision: u64| {
        format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{revision}"}}}}"#).into_bytes()
    };
    let names = |cache: &mut Cache| {
        let all: BTreeSet<String> = cache
            .open()
            .iter()
            .map(|json| String::from_utf8_lossy(json).into_owned())
            .collect();
        all.into_iter().collect::<Vec<_>>().join(" ")
    };
    let mut cache = Cache::new(path.clone());
    assert_eq!(names(&mut cache), "");
    cache.put(Place::new("", "a"), 1, &json("a", 1));
    assert_eq!(names(&mut Cache::new(path.clone())), "", "no list was complete");
    let mut cache = Cache::new(path.clone());
    cache.open();
    cache.put(Place::new("", "a"), 1, &json("a", 1));
    cache.complete(5);
    cache.put(Place::new("", "b"), 6, &json("b", 6));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let mut cut = Cache::new(path.clone());
    assert_eq!(names(&mut cut), String::from_utf8(json("a", 1)).unwrap());
    cut.put(Place::new("", "c"), 7, &json("c", 7));
    assert_eq!(names(&mut Cache::new(path.clone())).matches("name").count(), 2);
    std::fs::write(&path, "something else").unwrap();
    assert_eq!(names(&mut Cache::new(path)), "");
}

#[test]
fn a_file_that_is_mostly_waste_is_written_anew() {
    use super::cache::{Cache, Place};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services");
    let mut cache = Cache::new(path.clone());
    cache.open();
    let long = "x".repeat(10_000);
    let mut last = String::new();
    for revision in 1..=400_u64 {
        let json = format!(r#"{{"metadata":{{"name":"a","resourceVersion":"{revision}"}},"x":"{long}"}}"#);
        cache.put(Place::new("", "a"), revision, json.as_bytes());
        cache.complete(revision);
        last = json;
    }
    assert!(std::fs::metadata(&path).unwrap().len() < 2_000_000);
    let found = Cache::new(path).open();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0], last.as_bytes());
}

#[test]
fn a_secret_that_was_replaced_or_removed_leaves_no_trace_on_the_disk() {
    use std::os::unix::fs::PermissionsExt;

    use super::cache::{Cache, Place};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets");
    let mut cache = Cache::without_traces(path.clone());
    cache.open();
    let put = |cache: &mut Cache, name: &str, revision: u64, key: &str| {
        let json =
            format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{revision}"}},"key":"{key}"}}"#);
        cache.put(Place::new("", name), revision, json.as_bytes());
        cache.complete(revision);
    };
    put(&mut cache, "a", 1, "first-key");
    put(&mut cache, "b", 2, "other-key");
    let content = || String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    assert!(content().contains("first-key"));
    put(&mut cache, "a", 3, "second-key");
    assert!(!content().contains("first-key") && content().contains("second-key"));
    cache.remove(&Place::new("", "b"));
    cache.complete(4);
    assert!(!content().contains("other-key"));
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(Cache::without_traces(path).open().len(), 1);
}
