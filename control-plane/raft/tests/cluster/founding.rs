//! A folder is read, and another one made of what it held; the old and the new cluster keep apart.

use std::sync::Arc;

use flotilla_raft::{Expulsion, Founding, Platform, WatchError, found, other_answers, read_folder};
use flotilla_store::{Require, Revision};
use tokio::net::TcpListener;

use crate::harness::{Cluster, committed, connect, has, pods, put, within};

fn platform() -> Platform {
    Platform::real(Arc::new(connect))
}

/// A cluster of three, of which the first is made the only member; the old addresses, and the revision before.
async fn reduced() -> (Cluster, Vec<String>, Revision) {
    let cluster = Cluster::new();
    let mut nodes = cluster.of(3).await;
    for number in 0..20 {
        let name = format!("pod-{number}");
        let written = nodes[0].replica.propose(put(&name, "x", Require::Absent)).await;
        assert!(committed(&written.unwrap()));
    }
    within("all is everywhere", nodes[0].replica.read())
        .await
        .unwrap();
    let before = nodes[0].replica.cluster();
    let old_addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let (second, third) = (nodes.remove(1), nodes.remove(1));
    second.kill();
    third.kill();
    nodes.remove(0).stop().await;

    // Entries that nobody called committed are kept as well.
    let contents = within("read", read_folder(&platform(), &cluster.folder(1), 1))
        .await
        .unwrap();
    assert_eq!(contents.members.len(), 3);
    assert_eq!(contents.cluster, before);
    for member in &contents.members {
        assert!(!other_answers(&platform(), member).await);
    }
    let revision = contents.objects.revision();
    let founding = Founding {
        id: 1,
        name: "server-1".to_owned(),
        address: old_addresses[0].clone(),
        cluster: "new".to_owned(),
        former: vec![before],
        objects: contents.objects,
        term: contents.term,
    };
    std::fs::remove_dir_all(cluster.folder(1)).unwrap();
    let jumped = within("found", found(&platform(), &cluster.folder(1), founding))
        .await
        .unwrap();
    assert!(jumped.0 > revision.0 + 1_000_000);
    (cluster, old_addresses, revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_survivor_goes_on_alone_and_the_others_are_told_to_stop() {
    let (cluster, old_addresses, revision) = reduced().await;
    let survivor = cluster.start_at(1, &old_addresses[0]).await;
    let written = within(
        "a write",
        survivor.replica.propose(put("after", "x", Require::Absent)),
    );
    assert!(committed(&written.await.unwrap()));
    let snapshot = within("read", survivor.replica.read()).await.unwrap();
    assert!((0..20).all(|number| has(&snapshot, &format!("pod-{number}"))));
    assert_eq!(survivor.replica.members().len(), 1);
    let watch = survivor.replica.watch(pods(), None, Revision(revision.0)).err();
    assert!(matches!(watch, Some(WatchError::Expired { .. })), "{watch:?}");

    // The old members come back, and could elect a leader of their own; but they meet the survivor.
    let second = cluster.start_at(2, &old_addresses[1]).await;
    let third = cluster.start_at(3, &old_addresses[2]).await;
    for old in [second, third] {
        let told = within("it is told", old.replica.expelled()).await;
        assert!(
            matches!(&told, Expulsion::LeftBehind(said) if said.contains("now new")),
            "{told:?}"
        );
        old.stop().await;
    }
    let read = within("read", survivor.replica.read()).await.unwrap();
    assert!(has(&read, "after"), "nobody has disturbed it");

    // With nothing, they may join.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let newcomer = cluster.start_named(4, "server-2", listener).await;
    within(
        "join",
        newcomer.replica.join(std::slice::from_ref(&survivor.address)),
    )
    .await
    .unwrap();
    assert_eq!(newcomer.replica.cluster(), "new");
    assert!(has(
        &within("read", newcomer.replica.read()).await.unwrap(),
        "after"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_there_is_noticed() {
    let cluster = Cluster::new();
    let nodes = cluster.of(2).await;
    let members = nodes[0].replica.members();
    assert!(other_answers(&platform(), &members[1]).await);
}
