//! Data folders of every format that there was are opened, and hold what they held.

use std::path::{Path, PathBuf};

use flotilla_raft::{OpenError, Replica};
use flotilla_store::{Require, Revision};

use crate::harness::{Cluster, committed, eventually, has, put, within};

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

/// Tests change folders; fixtures stay.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), &target).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_of_format_1_is_opened_and_goes_on() {
    // The first folders did not say whose they are.
    for (says_whose, belongs_to) in [(true, "1"), (false, "first")] {
        let cluster = Cluster::new();
        copy(&fixture(1), &cluster.folder(1));
        if !says_whose {
            std::fs::remove_file(cluster.folder(1).join("about.json")).unwrap();
        }
        goes_on(&cluster, belongs_to).await;
    }
}

async fn goes_on(cluster: &Cluster, belongs_to: &str) {
    let node = cluster.start(1).await;
    assert!(node.replica.is_initialized());
    assert_eq!(node.replica.cluster(), belongs_to);
    eventually("it leads", || node.replica.leadership().borrow().is_self).await;
    let snapshot = within("read", node.replica.read()).await.unwrap();
    for name in ["pod-0", "pod-7", "late-0", "late-2"] {
        assert!(has(&snapshot, name), "{name}");
    }
    assert_eq!(snapshot.len(), 11);
    assert_eq!(snapshot.revision(), Revision(11));
    let written = within("write", node.replica.propose(put("new", "x", Require::Absent)));
    assert!(committed(&written.await.unwrap()));
    node.stop().await;
    assert!(cluster.folder(1).join("about.json").exists());
}

#[tokio::test]
async fn the_folder_of_a_later_release_is_refused() {
    let cluster = Cluster::new();
    copy(&fixture(1), &cluster.folder(1));
    let later = r#"{"format": 1000, "cluster": "first"}"#;
    std::fs::write(cluster.folder(1).join("about.json"), later).unwrap();
    let refused = Replica::open(cluster.options(1, "127.0.0.1:1"))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(refused, OpenError::Newer { found: 1000, .. }),
        "{refused}"
    );
}
