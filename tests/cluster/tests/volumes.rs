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

fn claim(name: &str, size: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{accessModes: \
         [ReadWriteOnce], resources: {{requests: {{storage: {size}}}}}}}}}"
    )
}

/// Whether root may resize mounted file systems here, for which it needs CAP_SYS_RESOURCE.
fn may_resize_mounted() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & (1 << 24) != 0
}

/// The files of all disks of a node.
fn disks(cluster: &Cluster, node: &str) -> Vec<std::path::PathBuf> {
    let data = cluster.folder().join(cluster.name()).join(node);
    let mut found = Vec::new();
    let mut folders = vec![data];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.ends_with("volumes/disks") {
                found.extend(
                    std::fs::read_dir(&path)
                        .unwrap()
                        .flatten()
                        .map(|entry| entry.path()),
                );
            } else if entry.file_type().unwrap().is_dir() && !path.ends_with("images") {
                folders.push(path);
            }
        }
    }
    found
}

/// Loop devices of this machine that show a file of the cluster.
fn loop_devices(cluster: &Cluster) -> Vec<String> {
    let folder = cluster.folder().display().to_string();
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    let shown = devices.filter_map(|device| {
        let file = std::fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        file.contains(&folder).then_some(file)
    });
    shown.collect()
}

#[test]
fn a_claim_outlives_its_pods_and_its_nodes_restart_and_holds_what_it_says() {
    let cluster = Cluster::up(1, 1);
    cluster.import_image("busybox");
    let classes = cluster.flotilla(&["get", "storageclasses"]);
    assert!(classes.contains("local (default)"), "{classes}");
    cluster.apply(&claim("data", "32Mi"));
    let events = || cluster.flotilla(&["get", "events"]);
    eventually("the claim waits for a pod", LIMIT, || {
        events().contains("waiting for first consumer").then_some(())
    });
    let volumes = "[{name: data, persistentVolumeClaim: {claimName: data}}]";
    let mounts = "[{name: data, mountPath: /data}]";
    let fill = "
echo kept > /data/file
head -c 100000000 /dev/zero > /data/big 2>/dev/null || echo full at $(stat -c %s /data/big)
rm /data/big
sync
sleep 1000";
    cluster.apply(&script("first", mounts, volumes, fill));
    let full = until_logged(&cluster, "first", "full at ");
    let bytes: u64 = full.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((16 << 20..32 << 20).contains(&bytes), "{bytes}");
    let bound = cluster.get(&["pvc", "data"]);
    assert_eq!(bound["status"]["phase"], "Bound");
    assert_eq!(bound["status"]["capacity"]["storage"], "32Mi");
    let node = pod(&cluster, "first")["spec"]["nodeName"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(disks(&cluster, &node).len(), 1);

    // A claim that is used does not go.
    cluster.flotilla(&["delete", "pod", "first"]);
    let read = "echo found $(cat /data/file); df -m /data | tail -1; sleep 1000";
    cluster.apply(&script("second", mounts, volumes, read));
    until_logged(&cluster, "second", "found kept");
    assert_eq!(pod(&cluster, "second")["spec"]["nodeName"], node.as_str());

    // The node loses everything but its disk.
    cluster.local(&["kill", &node]);
    cluster.local(&["start", &node]);
    eventually("the pod runs again", Duration::from_secs(90), || {
        let answer = cluster.try_flotilla(&["get", "pod", "second", "-o", "json"]);
        let pod: Value = serde_json::from_slice(&answer.stdout).ok()?;
        let status = pod["status"]["containerStatuses"][0].clone();
        (status["state"]["running"].is_object() || status["lastState"]["terminated"].is_object())
            .then_some(())
    });
    cluster.flotilla(&["delete", "pod", "second", "--ignore-not-found"]);
    grows_and_goes(&cluster, &node, mounts, volumes);
}

/// The rest of the claim's life.
fn grows_and_goes(cluster: &Cluster, node: &str, mounts: &str, volumes: &str) {
    let grow = "
echo again $(cat /data/file)
while true; do
  echo size $(df -m /data | tail -1 | awk '{print $2}')
  sleep 0.2
done";
    cluster.apply(&script("third", mounts, volumes, grow));
    until_logged(cluster, "third", "again kept");

    // The claim grows while its pod runs.
    cluster.apply(&claim("data", "128Mi"));
    let last = if may_resize_mounted() {
        "third"
    } else {
        // Where root may not resize what is mounted, the disk grows for the next pod; its node has to know by then.
        eventually("the volume is to grow", LIMIT, || {
            let volumes = cluster.get(&["pv"])["items"].clone();
            (volumes[0]["spec"]["capacity"]["storage"] == "128Mi").then_some(())
        });
        let status = cluster.get(&["pvc", "data"])["status"].clone();
        assert_eq!(status["capacity"]["storage"], "32Mi");
        let pending = &status["conditions"][0];
        assert_eq!(pending["type"], "FileSystemResizePending");
        let told = "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
        assert_eq!(pending["message"], told);
        cluster.flotilla(&["delete", "pod", "third"]);
        // Without grace the object goes before what it stands for.
        eventually("the disk is let go", LIMIT, || {
            loop_devices(cluster).is_empty().then_some(())
        });
        cluster.apply(&script("fourth", mounts, volumes, grow));
        "fourth"
    };
    eventually("the pod sees it", LIMIT, || {
        let log = String::from_utf8(cluster.try_flotilla(&["logs", last, "--tail=1"]).stdout).ok()?;
        let size: u64 = log.trim().rsplit(' ').next()?.parse().ok()?;
        (size > 90).then_some(())
    });
    eventually("the claim has grown", LIMIT, || {
        let status = cluster.get(&["pvc", "data"])["status"].clone();
        (status["capacity"]["storage"] == "128Mi" && status["conditions"].is_null()).then_some(())
    });

    // With the claim goes the disk, and no loop device is left; but not while a pod uses it.
    cluster.flotilla(&["delete", "pvc", "data", "--wait=false"]);
    assert!(cluster.flotilla(&["get", "pvc", "data"]).contains("Terminating"));
    cluster.flotilla(&["delete", "pod", last]);
    eventually("claim, volume and disk are gone", LIMIT, || {
        let volumes = cluster.get(&["pv"])["items"].as_array()?.len();
        (volumes == 0 && disks(cluster, node).is_empty()).then_some(())
    });
    assert_eq!(loop_devices(cluster), Vec::<String>::new());
}

#[test]
fn volumes_made_by_hand_and_for_one_pod_are_bound() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    let place = cluster.folder().join("by-hand");
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: hand}}, spec: {{capacity: {{storage: 1Gi}}, \
         accessModes: [ReadWriteMany], hostPath: {{path: {}}}}}}}",
        place.display()
    ));
    cluster.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: shared}, spec: {storageClassName: '', \
         accessModes: [ReadWriteMany], resources: {requests: {storage: 100Mi}}}}",
    );
    eventually("the claim is bound", LIMIT, || {
        (cluster.get(&["pvc", "shared"])["spec"]["volumeName"] == "hand").then_some(())
    });
    let volumes = "
    - {name: shared, persistentVolumeClaim: {claimName: shared}}
    - name: own
      ephemeral:
        volumeClaimTemplate:
          spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}";
    let mounts = "[{name: shared, mountPath: /shared}, {name: own, mountPath: /own}]";
    let write = "echo hello > /shared/greeting && echo own > /own/file && echo written; sleep 1000";
    cluster.apply(&script("both", mounts, volumes, write));
    until_logged(&cluster, "both", "written");
    assert_eq!(
        std::fs::read_to_string(place.join("greeting")).unwrap(),
        "hello\n"
    );
    assert_eq!(cluster.get(&["pvc", "both-own"])["status"]["phase"], "Bound");
    cluster.flotilla(&["delete", "pod", "both"]);
    eventually("the pod's own claim goes with it", LIMIT, || {
        let left = cluster.get(&["pvc"])["items"].as_array()?.len();
        (left == 1 && disks(&cluster, "server-1").is_empty()).then_some(())
    });
    // What was made by hand stays, and is nobody's until somebody says so.
    cluster.flotilla(&["delete", "pvc", "shared"]);
    eventually("the volume is released", LIMIT, || {
        (cluster.get(&["pv", "hand"])["status"]["phase"] == "Released").then_some(())
    });
    assert_eq!(loop_devices(&cluster), Vec::<String>::new());
}
