//! The loss of most of a cluster: a survivor that goes on alone, and a cluster made anew out of a snapshot.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use flotilla_cluster_tests::{Cluster, eventually, flotilla_binary, text};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server in a node's network, started by hand; it writes to `log`.
fn server(cluster: &Cluster, node: &str, name: &str, data: &Path, more: &[&str], log: &Path) -> Command {
    let nodes = cluster.status()["nodes"].clone();
    let address = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["name"] == node)
        .unwrap()["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut command = cluster.local_command(&["exec", node, "--"]);
    command
        .arg(flotilla_binary())
        .args([
            "server",
            "--disable-agent",
            "--name",
            name,
            "--address",
            &address,
            "--data-dir",
        ])
        .arg(data)
        .args(more)
        .stderr(std::fs::File::create(log).unwrap());
    command
}

fn data(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.folder().join(cluster.name()).join(node)
}

fn log_of(cluster: &Cluster, node: &str) -> String {
    let path = cluster
        .folder()
        .join(cluster.name())
        .join(format!("logs/{node}.log"));
    text(&std::fs::read(path).unwrap())
}

fn members(cluster: &Cluster) -> Vec<Value> {
    let output = cluster.try_flotilla(&["member", "list", "-o", "json"]);
    let list: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    list.and_then(|list| list["items"].as_array().cloned())
        .unwrap_or_default()
}

#[test]
fn one_survivor_goes_on_and_the_others_come_back_only_with_empty_folders() {
    let cluster = Cluster::up(3, 0);
    cluster.flotilla(&["create", "configmap", "kept", "--from-literal=a=b"]);
    eventually("all have it", LIMIT, || {
        let members = members(&cluster);
        let whole = members.iter().all(|member| member["status"]["behind"] == 0);
        (members.len() == 3 && whole).then_some(())
    });
    let folder = data(&cluster, "server-1");
    let log = cluster.folder().join("reset.log");
    let flag = ["--reset-to-this-member"];

    // Not while others are there.
    cluster.kill_process("server-1");
    let refused = server(&cluster, "server-1", "server-1", &folder, &flag, &log)
        .status()
        .unwrap();
    let said = text(&std::fs::read(&log).unwrap());
    assert!(!refused.success() && said.contains("still answer"), "{said}");

    cluster.local(&["kill", "server-2"]);
    cluster.local(&["kill", "server-3"]);
    let running = Running(
        server(&cluster, "server-1", "server-1", &folder, &flag, &log)
            .spawn()
            .unwrap(),
    );
    eventually("the survivor has what there was, and takes writes", LIMIT, || {
        let kept = cluster
            .try_flotilla(&["get", "configmap", "kept"])
            .status
            .success();
        let words = ["create", "configmap", "after", "--from-literal=a=b"];
        let written = cluster.try_flotilla(&words);
        let written = written.status.success() || text(&written.stderr).contains("already exists");
        (kept && written).then_some(())
    });
    assert_eq!(members(&cluster).len(), 1);
    let said = text(&std::fs::read(&log).unwrap());
    assert!(said.contains("must not come back with their old data"), "{said}");
    assert!(folder.join("store.before-reset").exists());

    cluster.local(&["start", "server-2"]);
    eventually("an old member is told to stop", LIMIT, || {
        log_of(&cluster, "server-2")
            .contains("was reset, or restored")
            .then_some(())
    });
    eventually("it has ended", LIMIT, || {
        let status = cluster.status();
        let nodes = status["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == "server-2").unwrap();
        (node["state"] != "running").then_some(())
    });
    let old = data(&cluster, "server-2");
    std::fs::rename(&old, old.with_extension("old")).unwrap();
    std::fs::create_dir(&old).unwrap();
    cluster.local(&["start", "server-2"]);
    eventually("it joins with an empty folder", LIMIT, || {
        let members = members(&cluster);
        let voters = members
            .iter()
            .filter(|member| member["status"]["role"] != "Learner");
        (voters.count() == 2).then_some(())
    });
    drop(running);
}

/// Saves and inspects a cluster; a copy with one wrong bit is refused. Returns the revision.
fn save(cluster: &Cluster, file: &Path) -> u64 {
    let name = file.to_str().unwrap();
    let said = cluster.flotilla(&["snapshot", "save", name]);
    assert!(said.contains("SHA-256"), "{said}");
    assert_eq!(
        std::fs::metadata(file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = cluster.try_flotilla(&["snapshot", "save", name]);
    assert!(text(&again.stderr).contains("never replaces a file"));
    let said = cluster.flotilla(&["snapshot", "inspect", name]);
    assert!(
        said.contains("Checksum:") && said.contains("configmaps"),
        "{said}"
    );
    let told: Value =
        serde_json::from_str(&cluster.flotilla(&["snapshot", "inspect", name, "-o", "json"])).unwrap();
    let revision = told["header"]["revision"].as_u64().unwrap();

    let damaged = file.with_extension("damaged");
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let refused = cluster.try_flotilla(&["snapshot", "inspect", damaged.to_str().unwrap()]);
    assert!(
        text(&refused.stderr).contains("is damaged at byte"),
        "{}",
        text(&refused.stderr)
    );
    revision
}

#[test]
fn a_cluster_is_saved_while_it_runs_and_made_anew_under_another_name_and_address() {
    let before = Cluster::up(3, 0);
    before.flotilla(&["create", "configmap", "kept", "--from-literal=a=b"]);
    before.flotilla(&["create", "secret", "generic", "hidden", "--from-literal=a=b"]);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("cluster.snapshot");
    let revision = save(&before, &file);
    drop(before);

    let name = file.to_str().unwrap();
    // Another machine: another network, another name, nothing of the old servers but the file.
    let machine = Cluster::up(1, 0);
    machine.kill_process("server-1");
    let folder = place.path().join("restored");
    let target = folder.to_str().unwrap();
    let said = machine.flotilla(&[
        "snapshot",
        "restore",
        name,
        "--data-dir",
        target,
        "--name",
        "phoenix",
    ]);
    assert!(said.contains("goes on at revision"), "{said}");
    let twice = machine.try_flotilla(&["snapshot", "restore", name, "--data-dir", target]);
    assert!(
        text(&twice.stderr).contains("is not empty"),
        "{}",
        text(&twice.stderr)
    );
    let log = place.path().join("restored.log");
    let running = Running(
        server(&machine, "server-1", "phoenix", &folder, &[], &log)
            .spawn()
            .unwrap(),
    );
    let kubeconfig = folder.join("admin.kubeconfig");
    let inside = |words: &[&str]| {
        let mut command = machine.local_command(&["exec", "server-1", "--"]);
        command
            .arg(flotilla_binary())
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(words);
        command.output().unwrap()
    };
    let kept = eventually("the new cluster has the objects", LIMIT, || {
        let output = inside(&["get", "configmap", "kept", "-o", "json"]);
        output.status.success().then(|| text(&output.stdout))
    });
    assert!(kept.contains("\"a\": \"b\""), "{kept}");
    assert!(inside(&["get", "secret", "hidden"]).status.success());
    let made = inside(&["create", "configmap", "new", "--from-literal=a=b", "-o", "json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let counted: u64 = made["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        counted > revision + 1_000_000,
        "nothing of the old cluster is counted again"
    );
    let members = inside(&["member", "list", "-o", "json"]);
    let members: Value = serde_json::from_slice(&members.stdout).unwrap();
    let members = members["items"].as_array().unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0]["metadata"]["name"], "phoenix");
    eventually("the new cluster has a join token", LIMIT, || {
        folder.join("join-token").exists().then_some(())
    });
    drop(running);
}
