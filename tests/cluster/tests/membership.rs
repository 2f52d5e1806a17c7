//! Servers that come, go, come back and move, seen through `flotilla member`.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::process::Child;
use std::time::Duration;

use flotilla_cluster_tests::{Cluster, eventually, text};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// The members, once the servers answer.
fn members(cluster: &Cluster) -> Vec<Value> {
    eventually("the members are listed", LIMIT, || {
        let output = cluster.try_flotilla(&["member", "list", "-o", "json"]);
        let list: Value = serde_json::from_slice(&output.stdout).ok()?;
        output
            .status
            .success()
            .then(|| list["items"].as_array().unwrap().clone())
    })
}

/// Waits until the members are as wanted.
fn wait_for(cluster: &Cluster, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(what, LIMIT, || {
        let members = members(cluster);
        wanted(&members).then_some(members)
    })
}

fn member<'a>(members: &'a [Value], name: &str) -> Option<&'a Value> {
    members.iter().find(|member| member["metadata"]["name"] == name)
}

/// All vote, and have everything.
fn are_whole(members: &[Value], count: usize) -> bool {
    let voters = members
        .iter()
        .filter(|member| member["status"]["role"] != "Learner");
    members.len() == count
        && voters.count() == count
        && members.iter().all(|member| member["status"]["behind"] == 0)
}

fn log_of(cluster: &Cluster, node: &str) -> String {
    let path = cluster
        .folder()
        .join(cluster.name())
        .join(format!("logs/{node}.log"));
    text(&std::fs::read(path).unwrap())
}

#[test]
fn a_server_is_removed_learns_why_and_joins_again_as_a_new_member() {
    let cluster = Cluster::up(3, 0);
    let before = wait_for(&cluster, "three members", |members| are_whole(members, 3));
    let leader = cluster.leader();
    let table = cluster.flotilla(&["member", "list"]);
    let line = table.lines().find(|line| line.starts_with(&leader)).unwrap();
    assert!(table.starts_with("NAME") && line.contains("Leader"), "{table}");

    let said = cluster.flotilla(&["member", "remove", &leader]);
    assert_eq!(said, format!("member \"{leader}\" removed\n"));
    assert!(are_whole(&members(&cluster), 2) || member(&members(&cluster), &leader).is_none());
    eventually("its process ends and says why", LIMIT, || {
        let log = log_of(&cluster, &leader);
        (log.contains("was removed from the cluster") && log.contains("--join HOST:PORT")).then_some(())
    });
    cluster.flotilla(&["create", "configmap", "without", "--from-literal=a=b"]);
    let twice = cluster.try_flotilla(&["member", "remove", &leader]);
    assert!(text(&twice.stderr).contains("no server of this cluster has the name"));

    // One of two may not go while the other is silent.
    let left = wait_for(&cluster, "two members", |members| are_whole(members, 2));
    let (stays, goes) = (&left[0]["metadata"]["name"], &left[1]["metadata"]["name"]);
    let (stays, goes) = (stays.as_str().unwrap(), goes.as_str().unwrap());
    assert_ne!(stays, goes);

    // As its message says: without its old folder it comes back as somebody new.
    let folder = cluster.folder().join(cluster.name()).join(&leader);
    eventually("its process is gone", LIMIT, || {
        let status = cluster.status();
        let nodes = status["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == leader.as_str()).unwrap();
        (node["state"] != "running").then_some(())
    });
    std::fs::rename(&folder, folder.with_extension("removed")).unwrap();
    std::fs::create_dir(&folder).unwrap();
    cluster.local(&["start", &leader]);
    let after = wait_for(&cluster, "three members again", |members| are_whole(members, 3));
    let id = |members: &[Value]| member(members, &leader).unwrap()["metadata"]["uid"].clone();
    assert_ne!(id(&before), id(&after));
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_comes_back_under_another_address_and_the_others_find_it() {
    let cluster = Cluster::up(3, 0);
    wait_for(&cluster, "three members", |members| are_whole(members, 3));
    let moves = ["server-1", "server-2", "server-3"]
        .into_iter()
        .find(|name| **name != *cluster.leader())
        .unwrap();
    cluster.kill_process(moves);
    let binary = flotilla_cluster_tests::flotilla_binary();
    let inside = |words: &[&str]| {
        let mut all = vec!["exec", moves, "--"];
        all.extend(words);
        cluster.local(&all);
    };
    inside(&["ip", "address", "flush", "dev", "eth0"]);
    inside(&["ip", "address", "add", "10.89.0.77/24", "dev", "eth0"]);
    let data = cluster.folder().join(cluster.name()).join(moves);
    let log = std::fs::File::create(cluster.folder().join("moved.log")).unwrap();
    let mut command = cluster.local_command(&["exec", moves, "--"]);
    command
        .arg(binary)
        .args([
            "server",
            "--disable-agent",
            "--name",
            moves,
            "--address",
            "10.89.0.77",
            "--data-dir",
        ])
        .arg(&data)
        .stderr(log);
    let running = Running(command.spawn().unwrap());
    let has_moved = |members: &[Value]| {
        let moved = member(members, moves);
        are_whole(members, 3) && moved.is_some_and(|it| it["status"]["address"] == "10.89.0.77:6443")
    };
    let said = || text(&std::fs::read(cluster.folder().join("moved.log")).unwrap());
    let members = wait_for(&cluster, "it is a member under its new address", |members| {
        assert!(!said().contains("error:"), "{}", said());
        has_moved(members)
    });
    assert_eq!(member(&members, moves).unwrap()["status"]["role"], "Voter");

    // It counts: with one of the others gone, the two still agree.
    let gone = ["server-1", "server-2", "server-3"]
        .into_iter()
        .find(|name| *name != moves)
        .unwrap();
    cluster.local(&["kill", gone]);
    eventually("writes go on", LIMIT, || {
        let words = ["create", "configmap", "after", "--from-literal=a=b"];
        let output = cluster.try_flotilla(&words);
        (output.status.success() || text(&output.stderr).contains("already exists")).then_some(())
    });
    drop(running);
}
