//! A container that changes paths while another one is made of them (CVE-2021-30465).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use flotilla_runtime::{ContainerSpec, Mount};
use support::{Node, ended, eventually, log};

const ROUNDS: u32 = 60;

fn bind(source: &Path, destination: &str) -> Mount {
    Mount {
        source: source.to_owned(),
        destination: destination.into(),
        ..Mount::default()
    }
}

/// The victim mounts a volume into one that it shares with the attacker, who swaps the target for a link to the folder
/// of all volumes. If a mount followed it, the next volume's path would be the attacker's, and leads to the node's root.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_swapped_for_a_link_leads_no_mount_onto_the_node() {
    let node = Node::new();
    let volumes = node.dir.path().join("volumes");
    let shared = volumes.join("shared");
    fs::create_dir_all(shared.join("target")).unwrap();
    fs::create_dir_all(volumes.join("private")).unwrap();
    fs::write(volumes.join("private/marker"), "the victim's own").unwrap();
    symlink("/", shared.join("private")).unwrap();
    symlink(&volumes, shared.join("link")).unwrap();
    fs::write(node.dir.path().join("marker"), "the node's").unwrap();

    let pod = node.pod("p").await;
    let mut attacker = node.container(
        &pod,
        "attacker",
        &["helper", "swap", "/shared/target", "/shared/link"],
    );
    attacker.mounts = vec![bind(&shared, "/shared")];
    let ready = attacker.log_path.clone();
    pod.start_container(attacker).await.unwrap();
    eventually("the attack runs", || log(&ready).contains("ready")).await;

    let mut made = 0;
    for round in 0..ROUNDS {
        let name = format!("victim{round}");
        let mut victim: ContainerSpec = node.container(&pod, &name, &["helper", "read", "/private/marker"]);
        victim.mounts = vec![
            bind(&shared, "/shared"),
            bind(&shared, "/shared/target"),
            bind(&volumes.join("private"), "/private"),
        ];
        let path = victim.log_path.clone();
        // To refuse it is as good as to make it right.
        if pod.start_container(victim).await.is_ok() {
            ended(&pod, &format!("{name}-0")).await;
            assert_eq!(log(&path), "stdout F the victim's own\n", "round {round}");
            made += 1;
        }
    }
    assert!(made > 0, "none was made, so nothing was tried");
    assert_eq!(
        fs::read_to_string(volumes.join("private/marker")).unwrap(),
        "the victim's own"
    );
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
