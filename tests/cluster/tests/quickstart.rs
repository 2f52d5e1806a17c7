//! What the quickstart shows, and that nothing is left of it afterwards.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use flotilla_cluster_tests::{Cluster, condition, eventually, name_of, root, succeed};

const LIMIT: Duration = Duration::from_secs(30);

fn web(image: &str) -> String {
    let manifest = fs::read_to_string(root().join("deploy/examples/web.yaml")).unwrap();
    manifest.replace("flotilla.dev/demo:v1", image)
}

#[test]
fn a_deployment_runs_is_repaired_and_is_updated() {
    let cluster = Cluster::up(3, 2);
    let nodes = cluster.get(&["nodes"]);
    let nodes = nodes["items"].as_array().unwrap();
    assert_eq!(nodes.len(), 5);
    assert!(nodes.iter().all(|node| condition(node, "Ready") == Some("True")));

    assert_eq!(
        cluster.apply(&web("flotilla.dev/demo:v1")),
        "deployment.apps/web created\n"
    );
    let status = cluster.flotilla(&["rollout", "status", "deployment/web"]);
    assert!(
        status.ends_with("deployment \"web\" successfully rolled out\n"),
        "{status}"
    );
    let pods = cluster.ready_pods("app=web", 3, LIMIT);
    let nodes: BTreeSet<&str> = pods
        .iter()
        .filter_map(|pod| pod["spec"]["nodeName"].as_str())
        .collect();
    assert_eq!(nodes.len(), 3, "the pods stand on {nodes:?}");
    for pod in &pods {
        let answer = cluster.fetch(&name_of(pod), 8080, "/");
        assert!(
            answer.contains("v1") && answer.contains(&name_of(pod)),
            "{answer}"
        );
    }

    let victim = name_of(&pods[0]);
    assert_eq!(
        cluster.flotilla(&["delete", "pod", &victim]),
        format!("pod \"{victim}\" deleted\n")
    );
    let repaired = cluster.ready_pods("app=web", 3, LIMIT);
    assert!(repaired.iter().all(|pod| name_of(pod) != victim));

    assert_eq!(
        cluster.apply(&web("flotilla.dev/demo:v2")),
        "deployment.apps/web configured\n"
    );
    cluster.flotilla(&["rollout", "status", "deployment/web"]);
    let updated = cluster.ready_pods("app=web", 3, LIMIT);
    assert!(cluster.fetch(&name_of(&updated[0]), 8080, "/").contains("v2"));
}

/// What a cluster may leave on the machine: processes, namespaces' mounts, cgroups, links, files.
fn traces(cluster: &str, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |what: &str, text: String, needle: &str| {
        found.extend(
            text.lines()
                .filter(|line| line.contains(needle))
                .map(|line| format!("{what}: {line}")),
        );
    };
    let mut ps = Command::new("ps");
    ps.args(["-eo", "args"]);
    look("process", succeed(ps).replace("ps -eo args", ""), folder);
    look(
        "mount",
        fs::read_to_string("/proc/self/mountinfo").unwrap(),
        cluster,
    );
    let mut find = Command::new("find");
    find.args(["/sys/fs/cgroup", "-type", "d", "-path", &format!("*{cluster}*")]);
    look("cgroup", succeed(find), cluster);
    let mut find = Command::new("find");
    find.args(["/run", "-path", &format!("*{cluster}*")]);
    look("file", succeed(find), cluster);
    found
}

#[test]
fn down_leaves_nothing_behind() {
    let links = |()| {
        let mut ip = Command::new("ip");
        ip.args(["-o", "link"]);
        succeed(ip).lines().filter(|line| !line.contains("fltt")).count()
    };
    let before = links(());
    let cluster = Cluster::up(1, 1);
    cluster.apply(&web("flotilla.dev/demo:v1"));
    cluster.ready_pods("app=web", 3, LIMIT);
    let (name, folder) = (
        cluster.name().to_owned(),
        cluster.folder().to_string_lossy().into_owned(),
    );
    assert_ne!(
        traces(&name, &folder),
        Vec::<String>::new(),
        "the check sees nothing even while the cluster runs"
    );
    cluster.local(&["down"]);
    eventually("nothing is left", Duration::from_secs(5), || {
        traces(&name, &folder).is_empty().then_some(())
    });
    let left: Vec<_> = fs::read_dir(cluster.folder()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(links(()), before);
    // Nodes keep their sandboxes in a /run of their own.
    let run = fs::read_dir("/run/flotilla").into_iter().flatten().flatten();
    let foreign: Vec<_> = run
        .map(|entry| entry.file_name())
        .filter(|name| name != "local")
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn a_cluster_is_ready_every_time() {
    // An agent may open its session at any moment of its server's election.
    for _ in 0..20 {
        drop(Cluster::up(1, 0));
    }
}
