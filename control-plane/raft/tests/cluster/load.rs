//! Too much at once, and one replica that is slow.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_raft::platform::{Change, OpenTreeError, SledTrees, Tree, TreeRange, Trees};
use flotilla_raft::{Options, Platform, ProposeError, Replica};
use flotilla_store::{OBJECT_BYTES_MAX, Require, Transaction};
use futures::FutureExt;
use futures::future::{BoxFuture, poll_immediate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::harness::{Cluster, Node, committed, eventually, has, leader, put, within};

/// Stops what passes while it is shut.
#[derive(Clone)]
struct Gate(watch::Sender<bool>);

impl Gate {
    fn open() -> Gate {
        Gate(watch::Sender::new(true))
    }

    fn set(&self, open: bool) {
        self.0.send_replace(open);
    }

    async fn pass(&self) {
        let mut open = self.0.subscribe();
        open.wait_for(|open| *open).await.unwrap();
    }
}

/// A port that leads to another one, through a gate.
async fn gated_port(gate: Gate, target: String, tracker: TaskTracker) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = tracker.clone();
    tracker.spawn(async move {
        while let Ok((outside, _)) = listener.accept().await {
            let Ok(inside) = TcpStream::connect(&target).await else {
                continue;
            };
            outside.set_nodelay(true).unwrap();
            inside.set_nodelay(true).unwrap();
            let (from_outside, to_outside) = outside.into_split();
            let (from_inside, to_inside) = inside.into_split();
            connections.spawn(copy(gate.clone(), from_outside, to_inside));
            connections.spawn(copy(gate.clone(), from_inside, to_outside));
        }
    });
    address
}

async fn copy(
    gate: Gate,
    mut from: impl AsyncReadExt + Unpin + Send,
    mut to: impl AsyncWriteExt + Unpin + Send,
) {
    let mut piece = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        gate.pass().await;
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// Trees that become durable only while a gate is open.
struct GatedTrees(Gate);
struct GatedTree(Gate, Arc<dyn Tree>);

impl Trees for GatedTrees {
    fn open(&self, folder: &Path, cache_bytes: u64) -> Result<Arc<dyn Tree>, OpenTreeError> {
        let tree = SledTrees.open(folder, cache_bytes)?;
        Ok(Arc::new(GatedTree(self.0.clone(), tree)))
    }

    fn exists(&self, folder: &Path) -> bool {
        SledTrees.exists(folder)
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        SledTrees.remove(folder)
    }
}

impl Tree for GatedTree {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.1.get(key)
    }

    fn range(&self, keys: Range<Bytes>) -> TreeRange {
        self.1.range(keys)
    }

    fn is_empty(&self) -> bool {
        self.1.is_empty()
    }

    fn bytes_on_disk(&self) -> io::Result<u64> {
        self.1.bytes_on_disk()
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, io::Result<()>> {
        self.1.apply(changes)
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        async {
            self.0.pass().await;
            self.1.sync().await
        }
        .boxed()
    }
}

/// Two replicas as usual, and a third with the options that `third` makes for its address.
async fn cluster_of_three(cluster: &Cluster, third: impl AsyncFnOnce(&str) -> Options) -> Vec<Node> {
    let mut nodes = cluster.of(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let node = cluster.start_with(third(&address).await, listener).await;
    let first = std::slice::from_ref(&nodes[0].address);
    within("join", node.replica.join(first)).await.unwrap();
    nodes.push(node);
    nodes
}

async fn write(replica: &Replica, name: &str) {
    let value = "x".repeat(10_000);
    let outcome = within("a write", replica.propose(put(name, &value, Require::Anything)));
    assert!(committed(&outcome.await.unwrap()));
}

/// Writes with the third replica stuck, and then lets it catch up.
async fn writes_go_on_without_the_third(nodes: &[Node], gate: &Gate) {
    write(&nodes[0].replica, "before").await;
    eventually("all have it", || has(&nodes[2].replica.snapshot(), "before")).await;
    gate.set(false);
    for number in 0..300 {
        write(&nodes[number % 2].replica, &format!("pod-{number}")).await;
    }
    assert!(
        !has(&nodes[2].replica.snapshot(), "pod-299"),
        "it was not stuck at all"
    );
    gate.set(true);
    eventually("it has caught up", || {
        has(&nodes[2].replica.snapshot(), "pod-299")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_a_stuck_link_holds_up_nobody() {
    let cluster = Cluster::new();
    let (gate, tracker) = (Gate::open(), TaskTracker::new());
    let nodes = cluster_of_three(&cluster, async |own| {
        let address = gated_port(gate.clone(), own.to_owned(), tracker.clone()).await;
        cluster.options(3, &address)
    })
    .await;
    writes_go_on_without_the_third(&nodes, &gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_stuck_disk_holds_up_nobody() {
    let cluster = Cluster::new();
    let gate = Gate::open();
    let nodes = cluster_of_three(&cluster, async |own| with_gated_disk(&cluster, &gate, own)).await;
    writes_go_on_without_the_third(&nodes, &gate).await;
}

/// Options of the third replica, with a disk behind a gate.
fn with_gated_disk(cluster: &Cluster, gate: &Gate, address: &str) -> Options {
    let options = cluster.options(3, address);
    let platform = Platform {
        trees: Arc::new(GatedTrees(gate.clone())),
        ..options.platform
    };
    Options { platform, ..options }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_beyond_the_queue_are_refused_at_once() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    let leading = leader(&nodes).await;
    let node = nodes.remove(leading);
    let ids = (1..=3).filter(|id| *id != leading as u64 + 1);
    let followers: Vec<(u64, String)> = ids.zip(nodes.iter().map(|node| node.address.clone())).collect();
    nodes.into_iter().for_each(Node::kill);
    // Nothing is committed now, so whatever is let in waits.
    let mut writers: Vec<_> = (0..8000)
        .map(|number| {
            let replica = node.replica.clone();
            async move {
                replica
                    .propose(put(&format!("pod-{number}"), "x", Require::Anything))
                    .await
            }
            .boxed()
        })
        .collect();
    let (mut refused, mut waiting) = (0, 0);
    for writer in &mut writers {
        match poll_immediate(writer).await {
            None => waiting += 1,
            Some(Err(ProposeError::Overloaded)) => refused += 1,
            Some(other) => panic!("{other:?}"),
        }
    }
    assert!(
        refused > 1000 && waiting > 4000,
        "{refused} refused, {waiting} waiting"
    );

    let mut returned = Vec::new();
    for (id, address) in &followers {
        returned.push(cluster.start_at(*id, address).await);
    }
    drop(writers);
    let replica = &returned[0].replica;
    within("writing goes on", async {
        // What was let in is still in the queue, though nobody waits for it.
        while replica.propose(put("afterwards", "x", Require::Anything)).await
            == Err(ProposeError::Overloaded)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(has(&replica.read().await.unwrap(), "afterwards"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_everywhere_and_nothing_happens() {
    let cluster = Cluster::new();
    let nodes = cluster.of(2).await;
    let largest = "x".repeat(OBJECT_BYTES_MAX - 100);
    let too_large = "x".repeat(OBJECT_BYTES_MAX);
    for (number, node) in nodes.iter().enumerate() {
        let name = format!("pod-{number}");
        let refused = node
            .replica
            .propose(put(&name, &too_large, Require::Anything))
            .await;
        let Err(ProposeError::TooLarge(why)) = refused else {
            panic!("{refused:?}")
        };
        assert!(why.contains("the limit for an object is 1572864"), "{why}");
        let fits = node.replica.propose(put(&name, &largest, Require::Absent));
        assert!(committed(&within("a write", fits).await.unwrap()));
        let many = Transaction {
            operations: (0..1025)
                .flat_map(|other| put(&format!("{name}-{other}"), "x", Require::Anything).operations)
                .collect(),
            fence: None,
        };
        let refused = node.replica.propose(many).await;
        assert!(matches!(refused, Err(ProposeError::TooLarge(_))), "{refused:?}");
    }
    assert_eq!(nodes[0].replica.read().await.unwrap().len(), 2);
}
