//! Pods whose images come from a registry, or from another node.

use std::{
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use flotilla_cluster_tests::{Cluster, eventually, image_archive, succeed};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const PORT: u16 = 5000;

fn text(cluster: &Cluster, pod: &str, at: &str) -> String {
    let pod = cluster.get(&["pod", pod]);
    let found = pod.pointer(at).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

fn waiting(cluster: &Cluster, pod: &str, reason: &str) -> String {
    eventually(&format!("{pod} waits for {reason}"), LIMIT, || {
        let state = "/status/containerStatuses/0/state/waiting";
        (text(cluster, pod, &format!("{state}/reason")) == reason)
            .then(|| text(cluster, pod, &format!("{state}/message")))
    })
}

fn running(cluster: &Cluster, pod: &str) {
    eventually(&format!("{pod} runs"), LIMIT, || {
        (text(cluster, pod, "/status/phase") == "Running").then_some(())
    });
}

fn pod(name: &str, image: &str, node: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n  {more}\n  \
         containers: [{{name: main, image: '{image}', imagePullPolicy: IfNotPresent, command: [sleep, \"1000\"]}}]\n"
    )
}

/// A docker-registry with a password inside a node's own network.
struct Registry(Child);

impl Registry {
    fn start(cluster: &Cluster, node: &str) -> Self {
        let folder = cluster.folder().join("registry");
        fs::create_dir_all(&folder).expect("a folder can be made");
        let path = |name: &str| folder.join(name).to_str().expect("the path is text").to_owned();
        let htpasswd = succeed(cluster.command("htpasswd", &["-Bbn", "me", "secret"]));
        fs::write(path("htpasswd"), htpasswd).expect("a file can be written");
        let config = json!({
            "version": "0.1", "log": {"level": "error"}, "http": {"addr": format!("0.0.0.0:{PORT}")},
            "storage": {"filesystem": {"rootdirectory": path("data")}},
            "auth": {"htpasswd": {"realm": "test", "path": path("htpasswd")}},
        });
        fs::write(path("config.yml"), config.to_string()).expect("a file can be written");
        let mut command = cluster.local_command(&["exec", node, "--", "docker-registry", "serve"]);
        let process = command
            .arg(path("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry can be run");
        Self(process)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Pushes busybox into the registry once it answers.
fn push(cluster: &Cluster, host: &str) {
    let archive = format!(
        "oci-archive:{}:flotilla.test/busybox:latest",
        image_archive("busybox").display()
    );
    eventually("the image is pushed", LIMIT, || {
        let words = [
            "exec",
            "server-1",
            "--",
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
        ];
        let mut push = cluster.local_command(&words);
        push.args(["--dest-tls-verify=false", "--dest-creds", "me:secret", &archive]);
        let pushed = push
            .arg(format!("docker://{host}/busybox:1"))
            .output()
            .expect("skopeo can be run");
        pushed.status.success().then_some(())
    });
}

#[test]
fn pods_run_images_of_a_registry_with_a_password_and_of_other_nodes() {
    let cluster = Cluster::up(1, 1);
    let status = cluster.status();
    let address = status["nodes"][0]["address"]
        .as_str()
        .expect("nodes have addresses")
        .to_owned();
    let (host, mirror) = (format!("{address}:{PORT}"), format!("http://{address}:{PORT}"));
    for node in ["server-1", "agent-1"] {
        let settings = format!("mirrors:\n  \"{host}\":\n    endpoint: [\"{mirror}\"]\n");
        fs::write(cluster.data_dir(node).join("registries.yaml"), settings).expect("a file can be written");
    }
    let _registry = Registry::start(&cluster, "server-1");
    push(&cluster, &host);
    let image = format!("{host}/busybox:1");

    cluster.apply(&pod("stranger", &image, "agent-1", ""));
    let message = waiting(&cluster, "stranger", "ErrImagePull");
    assert!(message.contains("imagePullSecrets"), "{message}");
    let message = waiting(&cluster, "stranger", "ImagePullBackOff");
    assert!(
        message.starts_with(&format!("Back-off pulling image \"{image}\"")),
        "{message}"
    );

    let auths = json!({"auths": {host: {"username": "me", "password": "secret"}}});
    cluster.apply(
        &json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": auths.to_string()},
        })
        .to_string(),
    );
    cluster.apply(&pod(
        "friend",
        &image,
        "agent-1",
        "imagePullSecrets: [{name: registry}]",
    ));
    running(&cluster, "friend");
    let id = text(&cluster, "friend", "/status/containerStatuses/0/imageID");
    assert!(
        id.starts_with(&format!("{address}:{PORT}/busybox@sha256:")),
        "{id}"
    );
    let described = cluster.flotilla(&["describe", "pod", "friend"]);
    assert!(described.contains("Successfully pulled image"), "{described}");
    eventually("the node lists the image", LIMIT, || {
        let node = cluster.get(&["node", "agent-1"]);
        node["status"]["images"].to_string().contains(&id).then_some(())
    });

    check_accounts_secrets(&cluster, &image);

    // Imported on one node only.
    let archive = image_archive("busybox");
    cluster.image(
        "server-1",
        &["import", archive.to_str().expect("the path is text")],
    );
    cluster.apply(&pod("neighbour", "flotilla.test/busybox:latest", "agent-1", ""));
    running(&cluster, "neighbour");
    let list = cluster.image("agent-1", &["list"]);
    assert!(list.contains("flotilla.test/busybox:latest"), "{list}");
}

/// A pod without secrets of its own has those of its service account; one that has some keeps to them.
fn check_accounts_secrets(cluster: &Cluster, image: &str) {
    let secrets = r#"{"imagePullSecrets": [{"name": "registry"}]}"#;
    cluster.flotilla(&["patch", "serviceaccount", "default", "-p", secrets]);
    cluster.apply(&pod("heir", image, "server-1", ""));
    running(cluster, "heir");
    assert_eq!(text(cluster, "heir", "/spec/imagePullSecrets/0/name"), "registry");
    assert_eq!(text(cluster, "heir", "/spec/serviceAccountName"), "default");
    cluster.apply(&pod(
        "own",
        image,
        "server-1",
        "imagePullSecrets: [{name: other}]",
    ));
    let own = cluster.get(&["pod", "own"]);
    assert_eq!(own["spec"]["imagePullSecrets"], json!([{"name": "other"}]));
}
