//! Static pods: run because of a file, with and without a control plane, and shown by mirrors.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{fs, path::PathBuf, process::Command, time::Duration};

use flotilla_cluster_tests::{
    Cluster, condition, eventually, is_ready, kubectls, process_start, succeed, text,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const MIRROR: &str = "web-agent-1";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.43.0.77, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// A web server that says one word.
fn manifest(word: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
    - name: main
      image: flotilla.test/busybox:latest
      imagePullPolicy: IfNotPresent
      command: [sh, -c, 'mkdir /w; echo {word} > /w/index.html; echo serving {word}; exec httpd -f -p 8080 -h /w']
      readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"
    )
}

fn folder(cluster: &Cluster) -> PathBuf {
    cluster.data_dir("agent-1").join("pod-manifests")
}

fn write(cluster: &Cluster, file: &str, content: &str) {
    fs::write(folder(cluster).join(file), content).unwrap();
}

/// The mirror, once it is ready and shows something new.
fn ready_mirror(cluster: &Cluster, before: Option<&Value>) -> Value {
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
    eventually("the mirror is ready", LIMIT, || {
        let pods = cluster.pods("app=web");
        let fits = |pod: &&Value| is_ready(pod) && uid(pod) != before.and_then(uid);
        pods.iter().find(fits).cloned()
    })
}

fn container_id(pod: &Value) -> String {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str();
    id.unwrap().to_owned()
}

/// What the service answers to a client in the static pod itself.
fn served(cluster: &Cluster) -> Option<String> {
    let words = [
        "exec",
        MIRROR,
        "--",
        "wget",
        "-q",
        "-O",
        "-",
        "http://10.43.0.77/",
    ];
    let output = cluster.try_flotilla(&words);
    output
        .status
        .success()
        .then(|| text(&output.stdout).trim().to_owned())
}

fn serves(cluster: &Cluster, word: &str) {
    eventually(&format!("the service answers {word}"), LIMIT, || {
        (served(cluster)? == word).then_some(())
    });
}

#[test]
fn a_static_pod_is_shown_served_and_nobodys_but_its_files() {
    let cluster = Cluster::up(1, 1);
    cluster.import_image("busybox");
    cluster.apply(SERVICE);
    write(&cluster, "web.yaml", &manifest("one"));
    let first = ready_mirror(&cluster, None);
    assert_eq!(first["metadata"]["name"], MIRROR);
    assert_eq!(first["metadata"]["ownerReferences"][0]["kind"], "Node");
    assert_eq!(first["spec"]["nodeName"], "agent-1");
    serves(&cluster, "one");
    let kubectl = kubectls().remove(0);
    let logs = succeed(cluster.command(&kubectl, &["logs", MIRROR]));
    assert_eq!(logs, "serving one\n");
    // Through the API server's proxy, which knows the pod's address from the mirror.
    assert_eq!(cluster.fetch(MIRROR, 8080, "/index.html"), "one\n");
    let said = succeed(cluster.command(&kubectl, &["exec", MIRROR, "--", "hostname"]));
    assert_eq!(said.trim(), MIRROR);
    let described = succeed(cluster.command(&kubectl, &["describe", "pod", MIRROR]));
    assert!(described.contains("Started container main"), "{described}");
    let described = cluster.flotilla(&["describe", "pod", MIRROR]);
    assert!(described.contains("Started container main"), "{described}");
    eventually("the static pod is measured", LIMIT, || {
        let top = cluster.try_flotilla(&["top", "pods"]);
        text(&top.stdout).contains(MIRROR).then_some(())
    });

    // Deleting the mirror only makes another one.
    succeed(cluster.command(&kubectl, &["delete", "pod", MIRROR]));
    let second = ready_mirror(&cluster, Some(&first));
    assert_eq!(container_id(&second), container_id(&first));
    let patch = r#"{"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "1"}}}]}}"#;
    let resize = cluster.try_flotilla(&["patch", "pod", MIRROR, "--subresource", "resize", "-p", patch]);
    let told = text(&resize.stderr);
    assert!(told.contains("static pods cannot be resized"), "{told}");
    // A change of the file replaces the pod, and with it the mirror.
    write(&cluster, "web.yaml", &manifest("two"));
    let third = ready_mirror(&cluster, Some(&second));
    assert_ne!(container_id(&third), container_id(&first));
    serves(&cluster, "two");
    // What cannot be a static pod is told, and changes nothing else.
    write(
        &cluster,
        "bad.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {containers: [{name: c, image: a, envFrom: [{secretRef: {name: s}}]}]}}",
    );
    eventually("the bad file is told", LIMIT, || {
        let described = cluster.flotilla(&["describe", "node", "agent-1"]);
        let told =
            "bad.yaml static pod \"bad\" can not reference secrets: spec.containers[0].envFrom[0].secretRef";
        (described.contains("InvalidStaticPod") && described.contains(told)).then_some(())
    });
    fs::remove_file(folder(&cluster).join("web.yaml")).unwrap();
    eventually("the mirror goes with its pod", LIMIT, || {
        cluster.pods("app=web").is_empty().then_some(())
    });
}

/// The logs of the node's static pods, read where they are written: it must work while no server answers.
fn logs(cluster: &Cluster) -> String {
    let pods = fs::read_dir(cluster.data_dir("agent-1").join("pods")).unwrap();
    let logs = pods.filter_map(|pod| fs::read_to_string(pod.ok()?.path().join("main/0.log")).ok());
    logs.collect()
}

#[test]
fn a_static_pod_needs_no_control_plane() {
    let cluster = Cluster::up(1, 1);
    cluster.import_image("busybox");
    write(&cluster, "web.yaml", &manifest("one"));
    let first = ready_mirror(&cluster, None);
    cluster.local(&["kill", "server-1"]);
    let mut kill = Command::new("kill");
    let agent = cluster.pid("agent-1");
    kill.args(["-KILL", &agent.to_string()]);
    succeed(kill);
    eventually("the agent is gone", LIMIT, || {
        process_start(agent).is_none().then_some(())
    });
    write(&cluster, "web.yaml", &manifest("two"));
    write(
        &cluster,
        "more.yml",
        &manifest("more").replace("name: web,", "name: more,"),
    );
    cluster.local(&["start", "agent-1"]);
    eventually("the changed and the new pod run", LIMIT, || {
        let said = logs(&cluster);
        let run = said.contains("serving two") && said.contains("serving more");
        (run && !said.contains("serving one")).then_some(())
    });
    cluster.local(&["start", "server-1"]);
    let second = ready_mirror_named(&cluster, MIRROR, &first);
    assert_ne!(container_id(&second), container_id(&first));
    ready_mirror_named(&cluster, "more-agent-1", &first);
}

fn ready_mirror_named(cluster: &Cluster, name: &str, before: &Value) -> Value {
    eventually(&format!("{name} is ready"), LIMIT, || {
        let output = cluster.try_flotilla(&["get", "pod", name, "-o", "json"]);
        let pod: Value = serde_json::from_slice(&output.stdout).ok()?;
        let is_new = pod["metadata"]["uid"] != before["metadata"]["uid"];
        (is_new && condition(&pod, "Ready") == Some("True")).then_some(pod)
    })
}
