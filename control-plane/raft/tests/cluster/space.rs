//! A data folder over its quota, and a log that gives space back.

use flotilla_raft::ProposeError;
use flotilla_store::{Operation, Require, Transaction};

use crate::harness::{Cluster, Node, committed, eventually, key, leader, put, within};

const QUOTA_BYTES: u64 = 24 << 20;
const OBJECT_BYTES: usize = 1 << 20;

/// A cluster whose folders hold some twenty of our objects.
fn small() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.limits.quota_bytes = QUOTA_BYTES;
    cluster.limits.snapshot_bytes_min = 2 << 20;
    cluster.limits.snapshot_bytes_max = 2 << 20;
    cluster.limits.kept_bytes_max = 1 << 20;
    cluster
}

fn delete(name: &str) -> Transaction {
    Transaction {
        operations: vec![Operation::Delete {
            key: key(name),
            require: Require::Anything,
        }],
        fence: None,
    }
}

/// Writes large objects until there is no room, and says how many there are.
async fn fill(node: &Node) -> usize {
    let value = "x".repeat(OBJECT_BYTES);
    let mut count = 0;
    within("no room", async {
        loop {
            match node
                .replica
                .propose(put(&format!("pod-{count}"), &value, Require::Absent))
                .await
            {
                Ok(_) => count += 1,
                Err(ProposeError::NoSpace(_)) => return count,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_quota_nothing_grows_anywhere_until_there_is_room_again() {
    let cluster = small();
    let nodes = cluster.of(3).await;
    let leading = leader(&nodes).await;
    let count = fill(&nodes[(leading + 1) % 3]).await;
    assert!(count > 3, "only {count} objects found room");
    for (number, node) in nodes.iter().enumerate() {
        let small = put(&format!("small-{number}"), "x", Require::Absent);
        let refused = node.replica.propose(small).await;
        let Err(ProposeError::NoSpace(why)) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            why.contains("more than its quota of 24 MiB: delete objects"),
            "{why}"
        );
        eventually("every server shows the alarm", || {
            !node.replica.status().alarms.is_empty()
        })
        .await;
        // What becomes smaller is let through, and what is deleted.
        let smaller = put(&format!("pod-{number}"), "x", Require::Present);
        assert!(committed(&node.replica.propose(smaller).await.unwrap()));
    }
    assert!(nodes[leading].replica.status().refused_for_space > 0);
    for number in 0..count {
        let node = &nodes[number % 3].replica;
        assert!(committed(
            &node.propose(delete(&format!("pod-{number}"))).await.unwrap()
        ));
    }
    for node in &nodes {
        eventually("the alarm is lifted", || node.replica.status().alarms.is_empty()).await;
        assert!(node.replica.status().space.used_bytes <= QUOTA_BYTES);
    }
    for (number, node) in nodes.iter().enumerate() {
        let small = put(&format!("small-{number}"), "x", Require::Absent);
        assert!(committed(&node.replica.propose(small).await.unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_large_gives_its_space_back_and_is_whole_after_a_restart() {
    let mut cluster = small();
    cluster.limits.quota_bytes = 0;
    cluster.limits.snapshot_bytes_min = 64 << 20;
    cluster.limits.snapshot_bytes_max = 64 << 20;
    let mut nodes = cluster.of(1).await;
    let used = |node: &Node| node.replica.status().space.used_bytes;
    // One object again and again: hardly anything is stored, and much is logged.
    let value = "x".repeat(OBJECT_BYTES);
    for _ in 0..60 {
        let again = put("large", &value, Require::Anything);
        assert!(committed(&nodes[0].replica.propose(again).await.unwrap()));
    }
    eventually("the log has grown", || used(&nodes[0]) > 48 << 20).await;
    for _ in 0..10 {
        let again = put("large", &value, Require::Anything);
        assert!(committed(&nodes[0].replica.propose(again).await.unwrap()));
    }
    assert!(committed(
        &nodes[0]
            .replica
            .propose(put("last", "x", Require::Absent))
            .await
            .unwrap()
    ));
    eventually("the log has shrunk", || used(&nodes[0]) < 32 << 20).await;
    nodes.remove(0).kill();
    let node = cluster.start(1).await;
    let snapshot = within("read", node.replica.read()).await.unwrap();
    assert!(snapshot.get(&key("large")).is_some() && snapshot.get(&key("last")).is_some());
    assert!(committed(
        &node
            .replica
            .propose(put("more", "x", Require::Absent))
            .await
            .unwrap()
    ));
}
