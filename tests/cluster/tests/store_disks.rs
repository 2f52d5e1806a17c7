//! Data that is damaged or lost, under load: its server never votes with what is left of it, and the others go on.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]
#![allow(clippy::print_stderr, reason = "figures are wanted")]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_cluster_tests::store::Store;
use flotilla_cluster_tests::{Cluster, eventually};
use flotilla_workload::Plan;

const LIMIT: Duration = Duration::from_secs(60);
const WRITES: u64 = 30;

fn log(cluster: &Cluster, server: &str) -> String {
    let logs = cluster.folder().join(cluster.name()).join("logs");
    fs::read_to_string(logs.join(format!("{server}.log"))).unwrap()
}

/// Changes one byte in each page of the newest log.
fn damage(store: &Path) {
    let folders = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let mut trees: Vec<PathBuf> = folders
        .map(|folder| folder.join("db"))
        .filter(|db| db.exists())
        .collect();
    trees.sort();
    let path = trees.pop().unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    for at in (2048..length).step_by(4096) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
    }
}

#[test]
fn damaged_and_lost_data_is_never_voted_with_and_its_server_comes_back() {
    let cluster = Cluster::up(3, 0);
    let store = Store::load(&cluster, Plan::default());
    let folder = |server: &str| cluster.folder().join(cluster.name()).join(server);

    cluster.local(&["kill", "server-2"]);
    damage(&folder("server-2").join("store"));
    cluster.local(&["start", "server-2"]);
    eventually("the damaged server says how to go on, and ends", LIMIT, || {
        let log = log(&cluster, "server-2");
        let nodes = cluster.status()["nodes"].as_array().unwrap().clone();
        let is_dead = nodes
            .iter()
            .any(|node| node["name"] == "server-2" && node["state"] == "dead");
        (is_dead && log.contains("must not vote with it") && log.contains("join token")).then_some(())
    });
    store.make_progress(WRITES);
    // As it says.
    fs::rename(folder("server-2"), folder("damaged")).unwrap();
    cluster.local(&["kill", "server-2"]);
    cluster.local(&["start", "server-2"]);
    store.wait_until_ready("server-2");

    // The same one again: it may still be learning, and without another the cluster would have no majority.
    cluster.local(&["kill", "server-2"]);
    fs::remove_dir_all(folder("server-2")).unwrap();
    store.make_progress(WRITES);
    cluster.local(&["start", "server-2"]);
    store.wait_until_ready("server-2");
    store.make_progress(WRITES);
    eprintln!("{}", store.judge());
}
