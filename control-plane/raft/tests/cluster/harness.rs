//! Replicas in one process, over real gRPC on loopback.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_raft::platform::Trees;
use flotilla_raft::{Limits, OpenError, Options, Platform, Replica, Timing};
use flotilla_store::{Draft, Key, Operation, Outcome, Require, ResourceName, Snapshot, Transaction};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint, Server};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Awaits something, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting: {what}"),
    }
}

/// Looks at a condition again and again until it holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    within(what, async {
        while !holds() {
            looks.tick().await;
        }
    })
    .await;
}

/// One server with a runtime of its own, so that it can die as a process does.
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) address: String,
    runtime: Option<Runtime>,
}

impl Node {
    /// The process dies: every task stops where it is, connections break, nothing is handed over.
    pub(crate) fn kill(self) {
        drop(self);
    }

    pub(crate) async fn stop(self) {
        self.replica.shutdown().await;
        self.kill();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) limits: Limits,
    pub(crate) timing: Timing,
    /// The disk of one replica, if it is not an ordinary one.
    pub(crate) disk: Option<(u64, Arc<dyn Trees>)>,
}

impl Cluster {
    pub(crate) fn new() -> Cluster {
        Cluster {
            folder: tempfile::tempdir().unwrap(),
            limits: Limits::default(),
            timing: Timing::default(),
            disk: None,
        }
    }

    pub(crate) fn folder(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("server-{id}"))
    }

    pub(crate) fn options(&self, id: u64, address: &str) -> Options {
        let mut platform = Platform::real(Arc::new(connect));
        if let Some((_, trees)) = self.disk.as_ref().filter(|(owner, _)| *owner == id) {
            platform.trees = Arc::clone(trees);
        }
        Options {
            id,
            name: format!("server-{id}"),
            address: address.to_owned(),
            data_dir: self.folder(id),
            platform,
            timing: self.timing,
            limits: self.limits,
        }
    }

    /// Starts a replica on a port of its own; whatever its folder holds is recovered.
    pub(crate) async fn start(&self, id: u64) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.start_on(id, listener).await
    }

    /// Starts a replica where it was before.
    pub(crate) async fn start_at(&self, id: u64, address: &str) -> Node {
        let listener = within("the port is free", async {
            loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await;
        self.start_on(id, listener).await
    }

    async fn start_on(&self, id: u64, listener: TcpListener) -> Node {
        self.start_named(id, &format!("server-{id}"), listener).await
    }

    pub(crate) async fn start_named(&self, id: u64, name: &str, listener: TcpListener) -> Node {
        let address = listener.local_addr().unwrap().to_string();
        let options = Options {
            name: name.to_owned(),
            ..self.options(id, &address)
        };
        self.start_with(options, listener).await
    }

    /// Starts a replica with any options; its address may be one that leads to the listener.
    pub(crate) async fn start_with(&self, options: Options, listener: TcpListener) -> Node {
        let address = options.address.clone();
        let listener = listener.into_std().unwrap();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let tracker = TaskTracker::new();
        let opening = tracker.spawn_on(open(options), runtime.handle());
        let replica = within("the folder is free", opening).await.unwrap();
        let service = replica.peer_service();
        let serve = async move {
            let listener = TcpListener::from_std(listener).unwrap();
            // Without it every small answer waits 40 ms for the other side's delayed acknowledgement.
            let incoming = TcpListenerStream::new(listener).map(|stream| {
                let stream = stream?;
                stream.set_nodelay(true)?;
                std::io::Result::Ok(stream)
            });
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        };
        tracker.spawn_on(serve, runtime.handle());
        Node {
            replica,
            address,
            runtime: Some(runtime),
        }
    }

    /// A cluster of voters with ids from 1.
    pub(crate) async fn of(&self, count: u64) -> Vec<Node> {
        let first = self.start(1).await;
        first.replica.bootstrap().await.unwrap();
        let mut nodes = vec![first];
        for id in 2..=count {
            let node = self.start(id).await;
            within("join", node.replica.join(std::slice::from_ref(&nodes[0].address)))
                .await
                .unwrap();
            nodes.push(node);
        }
        nodes
    }
}

/// Opens a replica as soon as the one that was killed has let go of the folder.
async fn open(options: Options) -> Replica {
    loop {
        match Replica::open(options.clone()).await {
            Ok(replica) => return replica,
            Err(OpenError::Folder { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn connect(address: &str) -> Channel {
    let _: SocketAddr = address.parse().unwrap();
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

pub(crate) fn pods() -> ResourceName {
    ResourceName::new("", "pods")
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(pods(), "default", name)
}

pub(crate) fn put(name: &str, value: &str, require: Require) -> Transaction {
    let json = format!(r#"{{"metadata":{{"name":"{name}"}},"value":"{value}"}}"#);
    let draft = Draft {
        json: Bytes::from(json),
        revision_at: 13,
    };
    Transaction {
        operations: vec![Operation::Put {
            key: key(name),
            draft,
            require,
        }],
        fence: None,
    }
}

pub(crate) fn has(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.get(&key(name)).is_some()
}

pub(crate) fn committed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Committed { .. })
}

/// The index of the node that leads, as the nodes themselves say.
pub(crate) async fn leader(nodes: &[Node]) -> usize {
    let leading = || {
        nodes
            .iter()
            .position(|node| node.replica.leadership().borrow().is_self)
    };
    eventually("a leader", || leading().is_some()).await;
    leading().unwrap()
}
