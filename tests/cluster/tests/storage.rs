//! Limits of local storage in real pods, and what is told of it.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::process::Command;
use std::time::Duration;

use flotilla_cluster_tests::{Cluster, condition, eventually, kubectls, succeed};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// A pod of one busybox container that runs a script; `more` is more of the container.
fn pod(name: &str, volumes: &str, more: &str, script: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: {volumes}
  containers:
    - name: main
      image: flotilla.test/busybox:latest
      imagePullPolicy: Never
      command: [sh, -c, '{script}; sleep 1000']
      {more}
"
    )
}

/// Waits until the node has evicted the pod; its message.
fn evicted(cluster: &Cluster, name: &str) -> String {
    eventually(&format!("{name} is evicted"), LIMIT, || {
        let status = cluster.get(&["pod", name])["status"].clone();
        let is_over = status["phase"] == "Failed" && status["reason"] == "Evicted";
        is_over.then(|| status["message"].as_str().unwrap().to_owned())
    })
}

fn phase(cluster: &Cluster, name: &str) -> Value {
    cluster.get(&["pod", name])["status"]["phase"].clone()
}

#[test]
fn pods_that_fill_more_than_they_may_are_evicted_and_others_are_not() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    let fill = |path: &str, mebibytes: u32| format!("dd if=/dev/zero of={path} bs=1M count={mebibytes}");
    let cache = "[{name: cache, emptyDir: {sizeLimit: 10Mi}}]";
    let mounts = "volumeMounts: [{name: cache, mountPath: /cache}]";
    let limited = "resources: {limits: {ephemeral-storage: 10Mi}}";
    cluster.apply(&pod("modest", cache, mounts, &fill("/cache/file", 5)));
    cluster.apply(&pod("folder", cache, mounts, &fill("/cache/file", 20)));
    cluster.apply(&pod("layer", "[]", limited, &fill("/file", 20)));
    // Two containers could fill 10Mi each, one may not fill 15 of these 20.
    let both = pod("one", "[]", limited, &fill("/file", 15))
        + "    - {name: other, image: 'flotilla.test/busybox:latest', imagePullPolicy: Never, command: [sleep, '1000'], \
           resources: {limits: {ephemeral-storage: 10Mi}}}\n";
    cluster.apply(&both);
    let chatter = "while true; do head -c 1000000 /dev/zero | tr \"\\\\000\" \"x\"; done";
    cluster.apply(&pod("log", "[]", limited, chatter));
    assert_eq!(
        evicted(&cluster, "folder"),
        "Usage of EmptyDir volume \"cache\" exceeds the limit \"10Mi\". "
    );
    assert_eq!(
        evicted(&cluster, "layer"),
        "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "
    );
    assert_eq!(
        evicted(&cluster, "one"),
        "Container main exceeded its local ephemeral storage limit \"10Mi\". "
    );
    evicted(&cluster, "log");
    let kubectl = kubectls().remove(0);
    eventually("the event is told", LIMIT, || {
        let described = succeed(cluster.command(&kubectl, &["describe", "pod", "folder"]));
        let is_told = described.contains("Evicted") && described.contains("Usage of EmptyDir volume");
        is_told.then_some(())
    });
    assert_eq!(phase(&cluster, "modest"), "Running");
}

#[test]
fn the_summary_tells_what_volumes_and_containers_hold() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    cluster.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], \
         resources: {requests: {storage: 32Mi}}}}",
    );
    let volumes = "[{name: scratch, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory, sizeLimit: 4Mi}}, \
                    {name: disk, persistentVolumeClaim: {claimName: data}}]";
    let mounts = "volumeMounts: [{name: scratch, mountPath: /scratch}, {name: memory, mountPath: /memory}, \
                  {name: disk, mountPath: /disk}]";
    let mebibyte = |path: &str| format!("dd if=/dev/zero of={path} bs=1M count=1");
    let paths = ["/scratch/a", "/memory/a", "/disk/a", "/own"];
    let script = paths.map(mebibyte).join("; ") + "; sync; echo written";
    cluster.apply(&pod("filler", volumes, mounts, &script));
    let kubectl = kubectls().remove(0);
    // Counted once a minute; the first count may come before the files do.
    let found = eventually(
        "the pod's files are in the summary",
        Duration::from_secs(100),
        || {
            let path = "/api/v1/nodes/server-1/proxy/stats/summary";
            let answer = cluster
                .command(&kubectl, &["get", "--raw", path])
                .output()
                .unwrap();
            let summary: Value = serde_json::from_slice(&answer.stdout).ok()?;
            let pods = summary["pods"].as_array()?.clone();
            let mut pods = pods.into_iter();
            let pod = pods.find(|pod| pod["podRef"]["name"] == "filler")?;
            (used(&pod["containers"][0]["rootfs"]) >= 1 << 20).then_some(pod)
        },
    );
    let volume = |name: &str| {
        let volumes = found["volume"].as_array().unwrap();
        volumes
            .iter()
            .find(|volume| volume["name"] == name)
            .unwrap()
            .clone()
    };
    assert!((1 << 20..3 << 20).contains(&used(&volume("scratch"))), "{found}");
    assert_eq!(volume("memory")["capacityBytes"], 4 << 20);
    assert_eq!(used(&volume("memory")), 1 << 20);
    let disk = volume("disk");
    assert_eq!(disk["pvcRef"]["name"], "data");
    let capacity = disk["capacityBytes"].as_u64().unwrap();
    assert!((20 << 20..=32 << 20).contains(&capacity), "{disk}");
    assert!(used(&disk) >= 1 << 20, "{disk}");
    let whole = used(&found["ephemeral-storage"]);
    assert!((2 << 20..5 << 20).contains(&whole), "{found}");
    assert!(found["containers"][0]["logs"]["usedBytes"].is_u64(), "{found}");
}

fn used(filesystem: &Value) -> u64 {
    filesystem["usedBytes"].as_u64().unwrap_or(0)
}

#[test]
fn a_claim_for_one_pod_is_had_by_one_pod() {
    let cluster = Cluster::up(1, 1);
    cluster.import_image("busybox");
    cluster.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: alone}, spec: {accessModes: \
         [ReadWriteOncePod], resources: {requests: {storage: 16Mi}}}}",
    );
    let volumes = "[{name: data, persistentVolumeClaim: {claimName: alone}}]";
    let mounts = "volumeMounts: [{name: data, mountPath: /data}]";
    let manifest = |name: &str| pod(name, volumes, mounts, "touch /data/file");
    let until_running = |name: &str| {
        eventually(&format!("{name} runs"), LIMIT, || {
            (phase(&cluster, name) == "Running").then_some(())
        });
    };
    cluster.apply(&manifest("first"));
    until_running("first");
    let kubectl = kubectls().remove(0);
    let until_told = |name: &str, wanted: &str| {
        eventually(&format!("{name} is told {wanted:?}"), LIMIT, || {
            let described = succeed(cluster.command(&kubectl, &["describe", "pod", name]));
            described.contains(wanted).then_some(())
        });
    };
    cluster.apply(&manifest("second"));
    until_told(
        "second",
        "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
    );
    // Pods that name their node get past the scheduler and not past the node.
    let node = cluster.get(&["pod", "first"])["spec"]["nodeName"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = if node == "agent-1" { "server-1" } else { "agent-1" };
    let bound =
        |name: &str, node: &str| manifest(name).replace("spec:\n", &format!("spec:\n  nodeName: {node}\n"));
    cluster.apply(&bound("third", &node));
    until_told(
        "third",
        "volume uses the ReadWriteOncePod access mode and is already in use by another pod",
    );
    cluster.apply(&bound("elsewhere", other));
    until_told("elsewhere", "no matching NodeSelectorTerms");
    cluster.flotilla(&["delete", "pod", "elsewhere", "third"]);
    assert_eq!(phase(&cluster, "second"), "Pending");
    cluster.flotilla(&["delete", "pod", "first"]);
    until_running("second");
}

/// A file system in memory under a node's data folder, for as long as the test runs.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(folder: std::path::PathBuf, options: &str) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "small-disk"])
            .arg(&folder);
        succeed(mount);
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The node has a copy of the mount in its own namespace, which ends with the node.
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_costs_the_pod_that_fills_it() {
    let mut disk = None;
    let cluster = Cluster::up_on(1, 1, &[], |nodes| {
        disk = Some(SmallDisk::mount(nodes.join("agent-1"), "size=1500M"));
    });
    // Unmounted before the cluster goes, which removes the folder.
    let _disk = disk;
    cluster.import_image("busybox");
    let on_agent = |manifest: String| {
        manifest.replace(
            "spec:\n",
            "spec:\n  nodeSelector: {kubernetes.io/hostname: agent-1}\n",
        )
    };
    let scratch = "[{name: scratch, emptyDir: {}}]";
    let mounts = "volumeMounts: [{name: scratch, mountPath: /scratch}]";
    let fill = |mebibytes: u32| format!("dd if=/dev/zero of=/scratch/file bs=1M count={mebibytes}");
    cluster.apply(&on_agent(pod("modest", scratch, mounts, &fill(10))));
    eventually("the modest pod runs", LIMIT, || {
        (phase(&cluster, "modest") == "Running").then_some(())
    });
    cluster.apply(&on_agent(pod("filler", scratch, mounts, &fill(5000))));
    let message = evicted(&cluster, "filler");
    let told = "The node was low on resource: ephemeral-storage. Threshold quantity: ";
    assert!(message.starts_with(told), "{message}");
    let filler = cluster.get(&["pod", "filler"]);
    assert_eq!(condition(&filler, "DisruptionTarget"), Some("True"));
    eventually("the node tells of it and is tainted", LIMIT, || {
        let node = cluster.get(&["node", "agent-1"]);
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let is_tainted = taints
            .iter()
            .any(|taint| taint["key"] == "node.kubernetes.io/disk-pressure");
        (condition(&node, "DiskPressure") == Some("True") && is_tainted).then_some(())
    });
    // A pod that names the node itself is not taken now.
    let late = pod("late", "[]", "", "true").replace("spec:\n", "spec:\n  nodeName: agent-1\n");
    cluster.apply(&late);
    assert_eq!(
        evicted(&cluster, "late"),
        "Pod was rejected: The node had condition: [DiskPressure]. "
    );
    assert_eq!(phase(&cluster, "modest"), "Running");
}
