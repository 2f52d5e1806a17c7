//! What is followed only when it is of use.

use super::*;

#[tokio::test]
async fn nothing_is_followed_or_remembered_before_the_gate_opens() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = TestServer::start().await;
    let gate = watch::Sender::new(false);
    let mut agent = Agent::start_when(folder.path(), &[&server.address], Some(gate.subscribe()));
    assert!(
        tokio::time::timeout(Duration::from_millis(200), server.streams.recv())
            .await
            .is_err(),
        "it is followed behind a gate that is shut"
    );
    gate.send_replace(true);
    let stream = server.stream().await;
    stream.list(&[("a", 3)], 10).await;
    assert_eq!(agent.until("synced").await, "a@3 synced");
    agent.stop().await;
    // With an open gate the next agent goes on from there.
    let mut agent = Agent::start_when(folder.path(), &[&server.address], Some(gate.subscribe()));
    assert_eq!(agent.until("synced").await, "a@3 synced");
    assert_eq!(server.stream().await.revision, 10);
    agent.stop().await;
    // One that was shut meanwhile has nothing that could be relied on.
    gate.send_replace(false);
    let mut agent = Agent::start_when(folder.path(), &[&server.address], Some(gate.subscribe()));
    gate.send_replace(true);
    let stream = server.stream().await;
    assert_eq!(stream.revision, 0);
    stream.list(&[("b", 4)], 20).await;
    assert_eq!(agent.until("synced").await, "b@4 synced");
    agent.stop().await;
}

#[tokio::test]
async fn one_who_always_follows_opens_it_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let gate = watch::Sender::new(false);
    let mut follow = Follow::new(folder.path().to_owned());
    follow.on_when::<Service>(gate.subscribe(), |_| {});
    assert!(follow.topics[0].gate().is_some());
    follow.on::<Service>(|_| {});
    assert!(follow.topics[0].gate().is_none());
    follow.on_when::<Service>(gate.subscribe(), |_| {});
    assert!(follow.topics[0].gate().is_none());
}
