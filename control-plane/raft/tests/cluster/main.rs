//! Three replicas in one process: what a client and an operator may rely on.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests may fail, and have names that say all"
)]

mod disks;
mod formats;
mod founding;
mod harness;
mod load;
mod membership;
mod space;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use flotilla_raft::{JoinError, OpenError, Options, ProposeError, Replica, WatchError};
use flotilla_store::{Change, HistoryLimits, Outcome, Require, Revision};
use harness::{Cluster, committed, eventually, has, key, leader, pods, put, within};
use tokio_util::task::TaskTracker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_anywhere_is_read_everywhere() {
    let cluster = Cluster::new();
    let nodes = cluster.of(3).await;
    for (index, writer) in nodes.iter().enumerate() {
        let name = format!("pod-{index}");
        assert!(committed(
            &writer
                .replica
                .propose(put(&name, "x", Require::Absent))
                .await
                .unwrap()
        ));
        for reader in &nodes {
            assert!(has(&reader.replica.read().await.unwrap(), &name));
        }
    }
    assert!(nodes[1].replica.members().iter().all(|member| member.voter));
    assert_eq!(nodes[1].replica.members().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_precondition_that_fails_changes_nothing() {
    let cluster = Cluster::new();
    let nodes = cluster.of(3).await;
    nodes[2]
        .replica
        .propose(put("a", "1", Require::Absent))
        .await
        .unwrap();
    let outcome = nodes[1]
        .replica
        .propose(put("a", "2", Require::Absent))
        .await
        .unwrap();
    let Outcome::Conflict {
        operation: 0,
        found: Some(found),
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(found.key, key("a"));
    assert_eq!(nodes[0].replica.read().await.unwrap().revision(), found.modified);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_replica_has_everything() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    let big = "x".repeat(300_000);
    nodes[0]
        .replica
        .propose(put("big", &big, Require::Absent))
        .await
        .unwrap();
    for number in 0..20 {
        nodes[0]
            .replica
            .propose(put(&format!("pod-{number}"), "x", Require::Absent))
            .await
            .unwrap();
    }
    let before = nodes[0].replica.read().await.unwrap();
    nodes.remove(1).stop().await;
    // What was committed while it was away arrives as well.
    nodes[1]
        .replica
        .propose(put("meanwhile", "x", Require::Absent))
        .await
        .unwrap();
    let again = cluster.start(2).await;
    assert!(again.replica.is_initialized());
    let address = nodes[0].address.clone();
    within("it announces its new address", again.replica.join(&[address]))
        .await
        .unwrap();
    let after = within("read", again.replica.read()).await.unwrap();
    assert!(has(&after, "meanwhile"));
    for object in before.iter() {
        assert_eq!(after.get(&object.key), Some(object));
    }
    let blobs = std::fs::read_dir(cluster.folder(2).join("log/blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "sled must not use files that it does not sync");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_replicas_restart_together_and_keep_what_was_acknowledged() {
    let cluster = Cluster::new();
    let nodes = cluster.of(3).await;
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    nodes[0]
        .replica
        .propose(put("a", "1", Require::Absent))
        .await
        .unwrap();
    for node in nodes {
        node.kill();
    }
    let mut nodes = Vec::new();
    for (id, address) in (1..).zip(&addresses) {
        nodes.push(cluster.start_at(id, address).await);
    }
    let leader = leader(&nodes).await;
    assert!(has(
        &within("read", nodes[(leader + 1) % 3].replica.read())
            .await
            .unwrap(),
        "a"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_the_leader_dies() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    let leading = leader(&nodes).await;
    let survivor = nodes[(leading + 1) % 3].replica.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let tracker = TaskTracker::new();
    let (stopped, count) = (Arc::clone(&stop), Arc::clone(&acknowledged));
    let writer = tracker.spawn(async move {
        let mut written = Vec::new();
        let mut number = 0;
        while !stopped.load(Ordering::Relaxed) {
            number += 1;
            let name = format!("pod-{number}");
            match survivor.propose(put(&name, "x", Require::Absent)).await {
                Ok(outcome) if committed(&outcome) => {
                    written.push(name);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(outcome) => panic!("{outcome:?}"),
                // Nobody promised anything about these.
                Err(ProposeError::Unknown(_) | ProposeError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        written
    });
    eventually("some writes", || acknowledged.load(Ordering::Relaxed) > 30).await;
    nodes.remove(leading).kill();
    let died = std::time::Instant::now();
    let before = acknowledged.load(Ordering::Relaxed);
    eventually("writes go on", || {
        acknowledged.load(Ordering::Relaxed) > before + 1
    })
    .await;
    let silence = died.elapsed();
    eventually("some more writes", || {
        acknowledged.load(Ordering::Relaxed) > before + 30
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let written = within("the writer", writer).await.unwrap();
    for node in &nodes {
        let snapshot = within("read", node.replica.read()).await.unwrap();
        for name in &written {
            assert!(has(&snapshot, name), "{name} was acknowledged and is gone");
        }
    }
    println!("writes went on {silence:?} after the leader's death");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_gets_a_snapshot_when_the_log_is_gone_and_then_votes() {
    let mut cluster = Cluster::new();
    cluster.limits.snapshot_entries = 20;
    cluster.limits.kept_entries = 2;
    let first = cluster.start(1).await;
    first.replica.bootstrap().await.unwrap();
    for number in 0..200 {
        first
            .replica
            .propose(put(&format!("pod-{number}"), "x", Require::Absent))
            .await
            .unwrap();
    }
    snapshot_is_taken(&cluster, 1).await;
    let second = cluster.start(2).await;
    within("join", second.replica.join(std::slice::from_ref(&first.address)))
        .await
        .unwrap();
    let snapshot = within("read", second.replica.read()).await.unwrap();
    assert_eq!(snapshot.len(), 200);
    assert!(second.replica.members().iter().all(|member| member.voter));
    let expired = second.replica.watch(pods(), None, Revision(1)).err();
    assert!(matches!(expired, Some(WatchError::Expired { .. })), "{expired:?}");

    // And it starts from its snapshot.
    let address = second.address.clone();
    second.stop().await;
    let second = cluster.start_at(2, &address).await;
    within("join", second.replica.join(std::slice::from_ref(&first.address)))
        .await
        .unwrap();
    assert_eq!(within("read", second.replica.read()).await.unwrap().len(), 200);
}

async fn snapshot_is_taken(cluster: &Cluster, id: u64) {
    let folder = cluster.folder(id).join("snapshots");
    eventually("a snapshot", || {
        let mut files = std::fs::read_dir(&folder).unwrap();
        files.any(|file| {
            file.unwrap()
                .path()
                .extension()
                .is_some_and(|extension| extension == "snapshot")
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_misses_nothing_and_repeats_nothing() {
    let cluster = Cluster::new();
    let nodes = cluster.of(3).await;
    let mut watch = nodes[2]
        .replica
        .watch(pods(), Some("default".into()), Revision(0))
        .unwrap();
    for number in 0..50 {
        nodes[number % 3]
            .replica
            .propose(put("a", &number.to_string(), Require::Anything))
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 50 {
        let batch = within("events", watch.next()).await.unwrap();
        seen.extend(batch.events);
    }
    let revisions: Vec<u64> = seen.iter().map(|event| event.revision.0).collect();
    assert_eq!(revisions, (1..=50).collect::<Vec<u64>>());
    assert_eq!(seen[0].change, Change::Added);
    assert!(seen[1..].iter().all(|event| event.change == Change::Modified));
    assert_eq!(watch.progress(), Revision(50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watch_is_told_that_it_fell_behind() {
    let mut cluster = Cluster::new();
    cluster.limits.history = HistoryLimits {
        events_max: 10,
        ..HistoryLimits::default()
    };
    let nodes = cluster.of(1).await;
    let mut watch = nodes[0].replica.watch(pods(), None, Revision(0)).unwrap();
    for number in 0..20 {
        nodes[0]
            .replica
            .propose(put("a", &number.to_string(), Require::Anything))
            .await
            .unwrap();
    }
    let expired = within("expired", watch.next()).await.unwrap_err();
    assert_eq!(expired, WatchError::Expired { oldest: Revision(10) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_is_fenced() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    let leading = leader(&nodes).await;
    let old_term = nodes[leading].replica.leadership().borrow().term;
    let mut fenced = put("a", "1", Require::Anything);
    fenced.fence = Some(old_term);
    assert!(committed(
        &nodes[0].replica.propose(fenced.clone()).await.unwrap()
    ));
    nodes.remove(leading).stop().await;
    let new_leader = leader(&nodes).await;
    let new_term = nodes[new_leader].replica.leadership().borrow().term;
    assert!(new_term > old_term);
    let outcome = within("propose", nodes[0].replica.propose(fenced)).await.unwrap();
    assert_eq!(outcome, Outcome::Fenced { term: new_term });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_neither_writes_nor_reads() {
    let mut cluster = Cluster::new();
    cluster.timing.patience = Duration::from_secs(2);
    let mut nodes = cluster.of(3).await;
    nodes.remove(2).kill();
    nodes.remove(1).kill();
    let replica = nodes[0].replica.clone();
    let (written, read) = within("answers", async {
        tokio::join!(replica.propose(put("a", "1", Require::Absent)), replica.read())
    })
    .await;
    assert!(written.is_err());
    assert!(read.is_err());
    let mut leadership = replica.leadership();
    within(
        "it notices",
        leadership.wait_for(|leadership| !leadership.is_self),
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_disk_comes_back_under_a_new_id_only() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    nodes.remove(2).stop().await;
    std::fs::remove_dir_all(cluster.folder(3)).unwrap();
    let amnesiac = cluster.start(3).await;
    let addresses = [nodes[0].address.clone()];
    let refused = within("join", amnesiac.replica.join(&addresses))
        .await
        .unwrap_err();
    assert!(matches!(refused, JoinError::Refused(_)), "{refused}");
    assert!(!amnesiac.replica.is_initialized());
    amnesiac.stop().await;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let newcomer = cluster.start_named(4, "server-3", listener).await;
    within("join", newcomer.replica.join(&addresses)).await.unwrap();
    let members: Vec<u64> = newcomer
        .replica
        .members()
        .iter()
        .map(|member| member.id)
        .collect();
    assert_eq!(members, [1, 2, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_folder_is_refused_with_advice() {
    let mut cluster = Cluster::new();
    cluster.limits.snapshot_entries = 10;
    let node = cluster.start(1).await;
    let address = node.address.clone();
    node.replica.bootstrap().await.unwrap();
    for number in 0..30 {
        node.replica
            .propose(put(&format!("pod-{number}"), "x", Require::Absent))
            .await
            .unwrap();
    }
    snapshot_is_taken(&cluster, 1).await;
    node.stop().await;
    let other = Replica::open(Options {
        id: 2,
        ..cluster.options(1, &address)
    })
    .await
    .err();
    assert!(
        matches!(
            other,
            Some(OpenError::Identity {
                found: 1,
                wanted: 2,
                ..
            })
        ),
        "{other:?}"
    );

    let snapshots: Vec<_> = std::fs::read_dir(cluster.folder(1).join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let mut bytes = std::fs::read(&snapshots[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshots[0], &bytes).unwrap();
    let error = Replica::open(cluster.options(1, &address)).await.err().unwrap();
    assert!(
        error.to_string().contains("rejoins the cluster as a learner"),
        "{error}"
    );
}
