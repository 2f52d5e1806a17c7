//! A disk that fails while its replica runs.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flotilla_raft::platform::{Change, OpenTreeError, SledTrees, Tree, TreeRange, Trees};
use flotilla_raft::{ProposeError, ReadError, WatchError};
use flotilla_store::{Require, Revision};
use futures::future::BoxFuture;

use crate::harness::{Cluster, eventually, pods, put, within};

/// Sled on a disk that can be made to fail.
#[derive(Clone, Default)]
struct Failing(Arc<AtomicBool>);

struct FailingTree {
    tree: Arc<dyn Tree>,
    fails: Arc<AtomicBool>,
}

impl Trees for Failing {
    fn open(&self, folder: &Path, cache_bytes: u64) -> Result<Arc<dyn Tree>, OpenTreeError> {
        let (tree, fails) = (SledTrees.open(folder, cache_bytes)?, Arc::clone(&self.0));
        Ok(Arc::new(FailingTree { tree, fails }))
    }

    fn exists(&self, folder: &Path) -> bool {
        SledTrees.exists(folder)
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        SledTrees.remove(folder)
    }
}

impl Tree for FailingTree {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.tree.get(key)
    }

    fn range(&self, keys: Range<Bytes>) -> TreeRange {
        self.tree.range(keys)
    }

    fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    fn bytes_on_disk(&self) -> io::Result<u64> {
        self.tree.bytes_on_disk()
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, io::Result<()>> {
        self.tree.apply(changes)
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        if self.fails.load(Ordering::Relaxed) {
            return Box::pin(async { Err(io::Error::from(io::ErrorKind::StorageFull)) });
        }
        self.tree.sync()
    }
}

/// The replica whose disk fails says so to everyone, at once, and the others go on.
async fn one_disk_fails(sick: u64) {
    let disk = Failing::default();
    let mut cluster = Cluster::new();
    cluster.disk = Some((sick, Arc::new(disk.clone())));
    let nodes = cluster.of(3).await;
    let at = usize::try_from(sick - 1).unwrap();
    let (sick, well) = (&nodes[at].replica, &nodes[(at + 1) % 3].replica);
    // The last change of members is over once writes after it are: in the middle of it the first two would both be needed.
    for number in 0..10 {
        let write = put(&format!("before-{number}"), "x", Require::Absent);
        well.propose(write).await.unwrap();
    }
    let mut watch = sick.watch(pods(), None, Revision(0)).unwrap();
    disk.0.store(true, Ordering::Relaxed);

    // A write that was on its way to a leader whose disk fails may be of unknown outcome; the next is not.
    let _ = well.propose(put("first", "x", Require::Anything)).await;
    within(
        "the others go on",
        well.propose(put("second", "x", Require::Absent)),
    )
    .await
    .unwrap();
    within("the others read", well.read()).await.unwrap();

    eventually("the failure is known", || sick.failure().is_some()).await;
    let reason = sick.failure().unwrap();
    assert!(
        reason.contains("make room on it, then start the server again"),
        "{reason}"
    );
    let refused = sick
        .propose(put("third", "x", Require::Absent))
        .await
        .unwrap_err();
    assert_eq!(refused, ProposeError::Unavailable(reason.clone()));
    assert_eq!(sick.read().await.unwrap_err(), ReadError::Unavailable(reason));
    let leadership = sick.leadership();
    eventually("it names no leader", || leadership.borrow().leader.is_none()).await;
    let ended = within("its watches end", async {
        loop {
            if let Err(error) = watch.next().await {
                return error;
            }
        }
    });
    assert_eq!(ended.await, WatchError::Closed);
    // Another one would never have an event; whoever is told so does not start watches in a loop.
    let again = sick.watch(pods(), None, Revision(0)).err();
    assert_eq!(again, Some(WatchError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_fails_says_so_and_disturbs_nobody() {
    one_disk_fails(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_fails_says_so_and_is_replaced() {
    one_disk_fails(1).await;
}
