//! Replicas in one process, over real gRPC on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_raft::{Limits, Options, Replica, Timing};
use flotilla_store::{Draft, Key, Operation, Outcome, Require, ResourceName, Snapshot, Transaction};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
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

pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) address: String,
    server: CancellationToken,
    tracker: TaskTracker,
}

impl Node {
    /// The process dies: nothing is handed over, connections break.
    pub(crate) async fn kill(self) {
        self.server.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    pub(crate) async fn stop(self) {
        self.replica.shutdown().await;
        self.kill().await;
    }
}

pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) limits: Limits,
}

impl Cluster {
    pub(crate) fn new() -> Cluster {
        Cluster {
            folder: tempfile::tempdir().unwrap(),
            limits: Limits::default(),
        }
    }

    pub(crate) fn folder(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("server-{id}"))
    }

    pub(crate) fn options(&self, id: u64, address: &str) -> Options {
        options(id, address, &self.folder(id), self.limits)
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
        let replica = within("the folder is free", async {
            loop {
                let mut options = self.options(id, &address);
                options.name = name.to_owned();
                match Replica::open(options).await {
                    Ok(replica) => return replica,
                    // The replica that was killed lets go of its lock a moment later.
                    Err(flotilla_raft::OpenError::Folder { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
        let (server, tracker) = (CancellationToken::new(), TaskTracker::new());
        let service = replica.peer_service();
        let stopped = server.clone();
        tracker.spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let serve = Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            tokio::select! {
                () = stopped.cancelled() => {}
                result = serve => result.unwrap(),
            }
        });
        Node {
            replica,
            address,
            server,
            tracker,
        }
    }

    /// A cluster of voters with ids from 1.
    pub(crate) async fn of(&self, count: u64) -> Vec<Node> {
        let first = self.start(1).await;
        first.replica.bootstrap().await.unwrap();
        let mut nodes = vec![first];
        for id in 2..=count {
            let node = self.start(id).await;
            within("join", node.replica.join(&[nodes[0].address.clone()]))
                .await
                .unwrap();
            nodes.push(node);
        }
        nodes
    }
}

fn options(id: u64, address: &str, folder: &Path, limits: Limits) -> Options {
    Options {
        id,
        name: format!("server-{id}"),
        address: address.to_owned(),
        data_dir: folder.to_path_buf(),
        connector: Arc::new(connect),
        timing: Timing::default(),
        limits,
    }
}

fn connect(address: &str) -> Channel {
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
