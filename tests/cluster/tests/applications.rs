//! What people run: the applications of `deploy/examples`, in images of real software.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{process::Command, time::Duration};

use flotilla_cluster_tests::{Cluster, eventually, name_of, root};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
/// How long nginx is under load; the whole run of the README takes 60 s.
const LOAD_SECONDS: &str = "60";

/// A manifest of `deploy/examples`, with the images that `deploy/images` builds in place of a registry's.
fn example(name: &str) -> String {
    let path = root().join("deploy/examples").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    ["busybox:1", "nginx:1", "redis:7", "postgres:15"]
        .into_iter()
        .fold(text, |text, image| {
            let (name, _) = image.split_once(':').unwrap();
            let tag = if name == "busybox" { "latest" } else { "1" };
            text.replace(
                &format!("image: {image}\n"),
                &format!("image: flotilla.test/{name}:{tag}\n"),
            )
        })
}

fn service_address(cluster: &Cluster, name: &str) -> String {
    cluster.get(&["service", name])["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// What a command prints in a node's namespaces, if it succeeds.
fn on_node(cluster: &Cluster, node: &str, words: &[&str]) -> Option<String> {
    let mut all = vec![
        "local",
        "--name",
        cluster.name(),
        "--dir",
        cluster.folder().to_str()?,
        "exec",
        node,
        "--",
    ];
    all.extend(words);
    let output = cluster.try_flotilla(&all);
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_web_application_counts_its_visitors_in_redis() {
    let cluster = Cluster::up(1, 1);
    for image in ["busybox", "redis"] {
        cluster.import_image(image);
    }
    cluster.apply(&example("guestbook.yaml"));
    cluster.ready_pods("app=redis", 1, LIMIT);
    let pods = cluster.ready_pods("app=guestbook", 2, LIMIT);
    let names: Vec<String> = pods.iter().map(name_of).collect();

    // By the API server's proxy to each pod, then through the Service from each node: one counter.
    let visit = |name: &str| cluster.fetch(name, 8080, "/cgi-bin/visit");
    let first = visit(&names[0]);
    assert!(first.starts_with("Welcome, visitor "), "{first}");
    let number = |text: &str| text.trim().rsplit(' ').next().unwrap().parse::<u32>().unwrap();
    let second = visit(&names[1]);
    assert_eq!(number(&second), number(&first) + 1);
    let url = format!("http://{}/cgi-bin/visit", service_address(&cluster, "guestbook"));
    for node in ["server-1", "agent-1"] {
        let text = eventually("the Service answers on each node", LIMIT, || {
            on_node(&cluster, node, &["curl", "-fsS", "-m", "5", &url])
        });
        assert!(number(&text) > number(&second), "{text}");
    }
    // By the Ingress, from any node's own address.
    for node in ["server-1", "agent-1"] {
        let host = "Host: guestbook.example.com";
        let url = "http://127.0.0.1/cgi-bin/visit";
        let text = eventually("the Ingress answers on each node", LIMIT, || {
            on_node(&cluster, node, &["curl", "-fsS", "-m", "5", "-H", host, url])
        });
        assert!(number(&text) > number(&second), "{text}");
    }

    // A change of the ConfigMap reaches the running pods.
    let anew = example("guestbook.yaml").replace("greeting: Welcome", "greeting: Hello again");
    cluster.apply(&anew);
    eventually("the running pods greet anew", LIMIT, || {
        visit(&names[0]).starts_with("Hello again").then_some(())
    });
    let mut same: Vec<String> = cluster.pods("app=guestbook").iter().map(name_of).collect();
    same.sort();
    let mut names = names;
    names.sort();
    assert_eq!(same, names, "and they are the same pods");
}

#[test]
fn postgres_keeps_its_data_without_its_pod_and_across_its_nodes_restart() {
    let cluster = Cluster::up(1, 1);
    cluster.import_image("postgres");
    cluster.apply(&example("postgres.yaml"));
    let sql = |statement: &str| {
        let words = [
            "exec",
            "postgres-0",
            "--",
            "psql",
            "-U",
            "postgres",
            "-At",
            "-c",
            statement,
        ];
        let output = cluster.try_flotilla(&words);
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let pod = cluster.ready_pods("app=postgres", 1, LIMIT).remove(0);
    assert_eq!(name_of(&pod), "postgres-0");
    sql("CREATE TABLE ship (name text)").unwrap();
    sql("INSERT INTO ship VALUES ('Endeavour')").unwrap();

    let uid = pod["metadata"]["uid"].clone();
    cluster.flotilla(&["delete", "pod", "postgres-0"]);
    let pod = cluster.ready_pods("app=postgres", 1, LIMIT).remove(0);
    assert_ne!(pod["metadata"]["uid"], uid, "it is another pod");
    assert_eq!(sql("SELECT name FROM ship").as_deref(), Some("Endeavour"));

    // The plug of its node is pulled: all of the node's processes and mounts are gone.
    let node = pod["spec"]["nodeName"].as_str().unwrap();
    sql("INSERT INTO ship VALUES ('Discovery')").unwrap();
    cluster.local(&["kill", node]);
    cluster.local(&["start", node]);
    let names = eventually("PostgreSQL answers again", LIMIT * 2, || {
        sql("SELECT name FROM ship ORDER BY name")
    });
    assert_eq!(names, "Discovery\nEndeavour");
    let claim = cluster.get(&["persistentvolumeclaim", "data-postgres-0"]);
    assert_eq!(claim["status"]["phase"], "Bound");
}

#[test]
fn nginx_is_updated_twice_under_load_without_a_failed_request() {
    let cluster = Cluster::up(1, 2);
    cluster.import_image("nginx");
    cluster.apply(&example("nginx.yaml"));
    cluster.ready_pods("app=nginx", 3, LIMIT);
    let url = format!("http://{}/", service_address(&cluster, "nginx"));
    eventually("the Service answers", LIMIT, || {
        on_node(
            &cluster,
            "agent-1",
            &[env!("CARGO_BIN_EXE_flotilla-load"), &url, "1", "1"],
        )
        .filter(|summary| failed(summary) == 0)
    });
    let load = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            on_node(
                &cluster,
                "agent-1",
                &[env!("CARGO_BIN_EXE_flotilla-load"), &url, "200", LOAD_SECONDS],
            )
        });
        for tag in ["2", "1"] {
            cluster.flotilla(&[
                "set",
                "image",
                "deployment/nginx",
                &format!("nginx=flotilla.test/nginx:{tag}"),
            ]);
            cluster.flotilla(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);
        }
        load.join().unwrap().unwrap()
    });
    assert_eq!(failed(&load), 0, "{load}");
    assert_eq!(requests(&load), 12_000, "{load}");
}

fn failed(summary: &str) -> u64 {
    number(summary, "failed")
}

fn requests(summary: &str) -> u64 {
    number(summary, "requests")
}

fn number(summary: &str, field: &str) -> u64 {
    let summary: Value = serde_json::from_str(summary).unwrap();
    summary[field].as_u64().unwrap()
}

/// Every example is a list of manifests that a server takes.
#[test]
fn every_example_is_accepted() {
    let cluster = Cluster::up(1, 0);
    for entry in std::fs::read_dir(root().join("deploy/examples")).unwrap() {
        let path = entry.unwrap().path();
        let mut command: Command = cluster.command(
            flotilla_cluster_tests::flotilla_binary(),
            &["apply", "--dry-run=server", "-f"],
        );
        let output = command.arg(&path).output().unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
