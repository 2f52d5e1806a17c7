//! Volumes in real pods: what they hold, how changes reach them, and what outlives what.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::time::Duration;

use flotilla_cluster_tests::{Cluster, eventually};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const BUSYBOX: &str = "flotilla.test/busybox:latest";

fn pod(cluster: &Cluster, name: &str) -> Value {
    cluster.get(&["pod", name])
}

/// Waits until the pod's log has a line with this text, and returns that line.
fn until_logged(cluster: &Cluster, name: &str, wanted: &str) -> String {
    eventually(&format!("{name} logs {wanted:?}"), LIMIT, || {
        let output = cluster.try_flotilla(&["logs", name]);
        let text = flotilla_cluster_tests::text(&output.stdout);
        text.lines().find(|line| line.contains(wanted)).map(str::to_owned)
    })
}

/// A pod of one busybox container that runs a script; `rest` is more of its spec.
fn script(name: &str, mounts: &str, volumes: &str, script: &str) -> String {
    let script: String = script.lines().map(|line| format!("          {line}\n")).collect();
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  volumes: {volumes}
  containers:
    - name: main
      image: {BUSYBOX}
      imagePullPolicy: Never
      env:
        - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: HOST, valueFrom: {{fieldRef: {{fieldPath: status.hostIP}}}}}}
      volumeMounts: {mounts}
      command: [sh, -c]
      args:
        - |
{script}"
    )
}

#[test]
fn files_of_the_control_plane_reach_pods_and_change_in_them() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    cluster.flotilla(&["create", "secret", "generic", "key", "--from-literal=pass=word"]);
    let volumes = "
    - {name: config, configMap: {name: settings}}
    - {name: key, secret: {secretName: key, defaultMode: 0o400}}
    - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
    - {name: scratch, emptyDir: {medium: Memory, sizeLimit: 1Mi}}";
    let mounts = "
        - {name: config, mountPath: /config}
        - {name: config, mountPath: /fixed, subPath: color}
        - {name: key, mountPath: /key}
        - {name: info, mountPath: /info}
        - {name: scratch, mountPath: /scratch/$(POD), subPathExpr: part/$(POD)}
        - {name: scratch, mountPath: /scratch-all}";
    let watch = "
echo pass $(cat /key/pass) $(stat -c %a /key/..data/pass)
echo labels $(cat /info/labels)
echo part $(ls /scratch-all/part)
touch /config/x 2>/dev/null || echo read-only
head -c 2000000 /dev/zero > /scratch-all/big 2>/dev/null || echo full at $(stat -c %s /scratch-all/big)
last=
while true; do
  now=$(cat /config/color)
  [ \"$now\" = \"$last\" ] || echo color $now fixed $(cat /fixed)
  last=$now
  sleep 0.05
done";
    cluster.apply(&script("watcher", mounts, volumes, watch));
    let message = "MountVolume.SetUp failed for volume \"config\" : configmap \"settings\" not found";
    eventually("the missing config map is told", LIMIT, || {
        let described = cluster.flotilla(&["describe", "pod", "watcher"]);
        described.contains(message).then_some(())
    });
    eventually("the container waits", LIMIT, || {
        let status = pod(&cluster, "watcher")["status"]["containerStatuses"][0].clone();
        (status["state"]["waiting"]["reason"] == "ContainerCreating").then_some(())
    });
    cluster.flotilla(&["create", "configmap", "settings", "--from-literal=color=blue"]);
    until_logged(&cluster, "watcher", "color blue fixed blue");
    until_logged(&cluster, "watcher", "pass word 400");
    until_logged(&cluster, "watcher", "labels app=\"watcher\"");
    until_logged(&cluster, "watcher", "part watcher");
    until_logged(&cluster, "watcher", "read-only");
    until_logged(&cluster, "watcher", "full at 1048576");
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {color: green}}");
    // A part of a volume stays what it was when its container started.
    until_logged(&cluster, "watcher", "color green fixed blue");

    // The agent dies and comes back: changes reach the same container.
    cluster.local(&["kill", "server-1", "--process-only"]);
    cluster.local(&["start", "server-1"]);
    eventually("the server answers again", LIMIT, || {
        cluster
            .try_flotilla(&["get", "pods"])
            .status
            .success()
            .then_some(())
    });
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {color: red}}");
    until_logged(&cluster, "watcher", "color red fixed blue");
    assert_eq!(
        pod(&cluster, "watcher")["status"]["containerStatuses"][0]["restartCount"],
        0
    );
}

/// The address of the API, as the kubeconfig has it.
fn server(cluster: &Cluster) -> String {
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
    kubeconfig["clusters"][0]["cluster"]["server"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_pod_talks_to_the_api_with_its_own_token() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    let tell = "
cd /var/run/secrets/kubernetes.io/serviceaccount
echo namespace $(cat namespace)
echo token $(cat token)
cat ca.crt";
    cluster.apply(&script("client", "[]", "[]", &format!("{tell}\nsleep 1000")));
    until_logged(&cluster, "client", "END CERTIFICATE");
    let log = cluster.flotilla(&["logs", "client"]);
    assert!(log.contains("namespace default"), "{log}");
    let token = until_logged(&cluster, "client", "token ").replace("token ", "");
    let authority = cluster.folder().join("ca.crt");
    std::fs::write(&authority, &log[log.find("-----BEGIN").unwrap()..]).unwrap();
    // As the pod would: with nothing but what the volume holds.
    let ask = |path: &str| {
        let server = format!("--server={}", server(&cluster));
        let authority = format!("--certificate-authority={}", authority.display());
        let token = format!("--token={token}");
        let kubectl = flotilla_cluster_tests::kubectls().remove(0);
        let mut command = cluster.command(kubectl, &[&server, &authority, &token, "get", "--raw", path]);
        let output = command.env("KUBECONFIG", "/dev/null").output().unwrap();
        flotilla_cluster_tests::text(&output.stdout) + &flotilla_cluster_tests::text(&output.stderr)
    };
    assert!(ask("/apis").contains("APIGroupList"), "{}", ask("/apis"));
    let forbidden = ask("/api/v1/secrets");
    assert!(
        forbidden.contains("system:serviceaccount:default:default"),
        "{forbidden}"
    );
    // The token dies with its pod.
    cluster.flotilla(&["delete", "pod", "client", "--grace-period=0", "--force"]);
    eventually("the token is worth nothing", LIMIT, || {
        ask("/apis").contains("Unauthorized").then_some(())
    });

    // An account that does not exist keeps the pod out.
    let stranger = "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {serviceAccountName: nobody, \
                    containers: [{name: c, image: 'flotilla.dev/demo:v1'}]}}";
    let refused = cluster.flotilla_with_input(&["apply", "-f", "-"], stranger);
    let told = flotilla_cluster_tests::text(&refused.stderr);
    assert!(
        told.contains("error looking up service account default/nobody: serviceaccount \"nobody\" not found"),
        "{told}"
    );
}
