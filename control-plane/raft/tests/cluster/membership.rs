//! Who is a member, and who leads: hand-over, removal, what is known of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use flotilla_raft::{MemberRole, MemberState, RemoveMemberError};
use flotilla_store::Require;
use tokio_util::task::TaskTracker;

use crate::harness::{Cluster, Node, committed, eventually, has, leader, put, within};

/// A cluster in which no election ever begins by itself: whoever leads next was told to.
fn without_elections() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.timing.election_min = Duration::from_secs(3600);
    cluster.timing.election_max = Duration::from_secs(7200);
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_is_followed_at_once_by_another_whatever_the_lease() {
    for count in [2, 3, 5] {
        let cluster = without_elections();
        let mut nodes = cluster.of(count).await;
        let leading = leader(&nodes).await;
        let term = nodes[leading].replica.leadership().borrow().term;
        let stopping = nodes.remove(leading);
        within("it resigns", stopping.replica.resign()).await;
        let next = leader(&nodes).await;
        let now = nodes[next].replica.leadership().borrow().clone();
        assert_eq!(now.term, term + 1, "one election, won at once");
        // The old leader is a follower like any other.
        let written = stopping.replica.propose(put("a", "1", Require::Absent));
        assert!(committed(&within("a write", written).await.unwrap()));
        within("it stops", stopping.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_without_an_error_while_leadership_is_handed_from_one_to_the_next() {
    let cluster = without_elections();
    let nodes = cluster.of(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let tracker = TaskTracker::new();
    let writers = nodes.iter().enumerate().map(|(number, node)| {
        let (replica, stop, count) = (node.replica.clone(), Arc::clone(&stop), Arc::clone(&count));
        tracker.spawn(async move {
            let mut written = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let name = format!("pod-{number}-{}", written.len());
                let outcome = replica.propose(put(&name, "x", Require::Absent)).await;
                assert!(committed(&outcome.unwrap()));
                count.fetch_add(1, Ordering::Relaxed);
                written.push(name);
            }
            written
        })
    });
    let writers: Vec<_> = writers.collect();
    for _ in 0..6 {
        let before = count.load(Ordering::Relaxed);
        eventually("some writes", || count.load(Ordering::Relaxed) > before + 20).await;
        let leading = leader(&nodes).await;
        within("it resigns", nodes[leading].replica.resign()).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for writer in writers {
        written.extend(within("the writer", writer).await.unwrap());
    }
    let snapshot = within("read", nodes[0].replica.read()).await.unwrap();
    assert!(written.iter().all(|name| has(&snapshot, name)));
}

async fn states(node: &Node) -> Vec<MemberState> {
    within("states", node.replica.member_states()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_tells_what_the_leader_knows_of_each() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    for node in &nodes {
        node.replica
            .propose(put("a", "1", Require::Anything))
            .await
            .unwrap();
    }
    let leading = leader(&nodes).await;
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    within("all have caught up", async {
        while !states(&nodes[0])
            .await
            .iter()
            .all(|state| state.behind == Some(0))
        {
            looks.tick().await;
        }
    })
    .await;
    for node in &nodes {
        let states = states(node).await;
        let roles: Vec<(u64, MemberRole)> =
            states.iter().map(|state| (state.member.id, state.role)).collect();
        let expected = (1..=3).map(|id| match id == leading as u64 + 1 {
            true => (id, MemberRole::Leader),
            false => (id, MemberRole::Voter),
        });
        assert_eq!(roles, expected.collect::<Vec<_>>());
        assert!(states.iter().all(|state| state.log_index > Some(0)));
        let heard = states.iter().filter(|state| state.silence.is_some()).count();
        assert_eq!(heard, 2, "of the followers");
    }
    // Without a leader, what a server knows itself is better than nothing.
    let last = nodes.remove((leading + 1) % 3);
    nodes.into_iter().for_each(Node::kill);
    let states = states(&last).await;
    assert_eq!(states.len(), 3);
    let known: Vec<bool> = states.iter().map(|state| state.log_index.is_some()).collect();
    assert_eq!(known.iter().filter(|known| **known).count(), 1, "{known:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_server_learns_that_it_is_none_and_its_name_can_come_back() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    let leading = leader(&nodes).await;
    // Asked of a follower, about another one.
    let (asked, removed) = ((leading + 1) % 3, (leading + 2) % 3);
    let id = removed as u64 + 1;
    within("remove", nodes[asked].replica.remove_member(id, false))
        .await
        .unwrap();
    let gone = nodes.remove(removed);
    within("it learns of it", gone.replica.expelled()).await;
    assert!(nodes.iter().all(|node| node.replica.members().len() == 2));
    let again = nodes[0].replica.remove_member(id, false);
    assert_eq!(within("remove", again).await, Err(RemoveMemberError::Unknown(id)));
    gone.stop().await;

    // One that was away when it happened learns of it as well.
    let back = cluster.start(id).await;
    within("it learns of it", back.replica.expelled()).await;
    back.stop().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let newcomer = cluster.start_named(9, &format!("server-{id}"), listener).await;
    within(
        "join",
        newcomer.replica.join(std::slice::from_ref(&nodes[0].address)),
    )
    .await
    .unwrap();
    assert_eq!(newcomer.replica.members().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hands_over_first() {
    let cluster = without_elections();
    let nodes = cluster.of(3).await;
    let leading = leader(&nodes).await;
    let removed = within(
        "remove",
        nodes[leading].replica.remove_member(leading as u64 + 1, false),
    );
    removed.await.unwrap();
    let other = &nodes[(leading + 1) % 3].replica;
    assert_eq!(other.members().len(), 2);
    let written = other.propose(put("a", "1", Require::Absent));
    assert!(committed(&within("a write", written).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_lose_the_quorum_is_refused() {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    let leading = leader(&nodes).await;
    let silent = (leading + 1) % 3;
    let other = (leading + 2) % 3;
    let (leading_replica, other_id) = (nodes[leading].replica.clone(), other as u64 + 1);
    nodes.remove(silent).kill();
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let refused = within("it is noticed", async {
        loop {
            looks.tick().await;
            let states = leading_replica.member_states().await;
            let silence = states.iter().find(|state| state.member.id == silent as u64 + 1);
            if silence.is_some_and(|state| state.silence > Some(Duration::from_millis(1100))) {
                return leading_replica.remove_member(other_id, false).await;
            }
        }
    })
    .await;
    let Err(RemoveMemberError::Refused(reason)) = refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains("only 1 do"), "{reason}");
    // The silent one may go, and then nothing hangs on it any more.
    within("remove", leading_replica.remove_member(silent as u64 + 1, false))
        .await
        .unwrap();
    assert_eq!(leading_replica.members().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_gets_a_large_snapshot_and_votes_while_writes_go_on() {
    let mut cluster = Cluster::new();
    cluster.limits.kept_entries = 2;
    let first = cluster.start(1).await;
    first.replica.bootstrap().await.unwrap();
    let big = "x".repeat(500_000);
    for number in 0..60 {
        let outcome = first
            .replica
            .propose(put(&format!("big-{number}"), &big, Require::Absent))
            .await;
        assert!(committed(&outcome.unwrap()));
    }
    let (stop, tracker) = (Arc::new(AtomicBool::new(false)), TaskTracker::new());
    let (writing, stopped) = (first.replica.clone(), Arc::clone(&stop));
    let writer = tracker.spawn(async move {
        let mut number = 0;
        while !stopped.load(Ordering::Relaxed) {
            let outcome = writing
                .propose(put(&format!("pod-{number}"), "x", Require::Absent))
                .await;
            assert!(committed(&outcome.unwrap()));
            number += 1;
        }
        number
    });
    let second = cluster.start(2).await;
    within("join", second.replica.join(std::slice::from_ref(&first.address)))
        .await
        .unwrap();
    stop.store(true, Ordering::Relaxed);
    let written = within("the writer", writer).await.unwrap();
    assert!(written > 0);
    assert!(second.replica.members().iter().all(|member| member.voter));
    let snapshot = within("read", second.replica.read()).await.unwrap();
    assert_eq!(snapshot.len(), 60 + written);
}
