//! In-place resize: what the API refuses, and what reaches the kernel.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{fs, path::Path, path::PathBuf, time::Duration};

use flotilla_cluster_tests::{Cluster, condition, eventually, processes, text};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

const SIZED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: free
      image: flotilla.test/busybox:latest
      imagePullPolicy: IfNotPresent
      command: [sleep, '7001']
      resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
    - name: fresh
      image: flotilla.test/busybox:latest
      imagePullPolicy: IfNotPresent
      command: [sleep, '7002']
      resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
      resizePolicy:
        - {resourceName: cpu, restartPolicy: NotRequired}
        - {resourceName: memory, restartPolicy: RestartContainer}
";

fn container(cluster: &Cluster, name: &str) -> Value {
    let pod = cluster.get(&["pod", "sized"]);
    let all = pod["status"]["containerStatuses"].as_array().cloned();
    all.unwrap_or_default()
        .into_iter()
        .find(|status| status["name"] == name)
        .unwrap_or_default()
}

/// Asks for other resources of one container.
fn resize(cluster: &Cluster, name: &str, resources: &Value) -> std::process::Output {
    let patch = json!({"spec": {"containers": [{"name": name, "resources": resources}]}}).to_string();
    cluster.try_flotilla(&["patch", "pod", "sized", "--subresource", "resize", "-p", &patch])
}

#[track_caller]
fn is_resized(cluster: &Cluster, name: &str, resources: &Value) {
    let output = resize(cluster, name, resources);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "pod/sized patched\n");
}

#[track_caller]
fn is_refused(cluster: &Cluster, name: &str, resources: &Value, why: &str) {
    let output = resize(cluster, name, resources);
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.contains(why), "{told}");
}

/// The cgroup of the container that runs this command, for one controller.
fn cgroup(cluster: &Cluster, command: &str, controller: &str) -> Option<PathBuf> {
    let all = processes::of(cluster);
    let found = all.iter().find(|process| process.command == command)?;
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", found.pid)).ok()?;
    let of = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let root = match controllers {
            "" if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() => PathBuf::from("/sys/fs/cgroup"),
            _ if controllers.split(',').any(|name| name == controller) => {
                Path::new("/sys/fs/cgroup").join(controller)
            }
            _ => return None,
        };
        Some(root.join(path.trim_start_matches('/')))
    };
    cgroups.lines().find_map(of)
}

fn number(folder: &Path, v1: &str, v2: &str) -> Option<i64> {
    let content = fs::read_to_string(folder.join(v1)).or_else(|_| fs::read_to_string(folder.join(v2)));
    content.ok()?.split_whitespace().next()?.parse().ok()
}

/// Microseconds of processor time per 100 ms, and bytes of memory.
fn limits(cluster: &Cluster, command: &str) -> Option<(i64, i64)> {
    let (cpu, memory) = (
        cgroup(cluster, command, "cpu")?,
        cgroup(cluster, command, "memory")?,
    );
    Some((
        number(&cpu, "cpu.cfs_quota_us", "cpu.max")?,
        number(&memory, "memory.limit_in_bytes", "memory.max")?,
    ))
}

fn is_settled(cluster: &Cluster) -> bool {
    let pod = cluster.get(&["pod", "sized"]);
    let none = |name: &str| condition(&pod, name) != Some("True");
    condition(&pod, "Ready") == Some("True") && none("PodResizePending") && none("PodResizeInProgress")
}

#[test]
fn running_containers_get_other_limits() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    cluster.apply(SIZED);
    eventually("the pod is ready", LIMIT, || is_settled(&cluster).then_some(()));
    let before = container(&cluster, "free");
    assert_eq!(limits(&cluster, "sleep 7001"), Some((20_000, 64 << 20)));

    let wanted =
        json!({"requests": {"cpu": "150m", "memory": "32Mi"}, "limits": {"cpu": "300m", "memory": "96Mi"}});
    is_resized(&cluster, "free", &wanted);
    let after = eventually("the status tells of the new size", LIMIT, || {
        let status = container(&cluster, "free");
        (status["resources"] == wanted && is_settled(&cluster)).then_some(status)
    });
    assert_eq!(after["allocatedResources"], wanted["requests"]);
    assert_eq!(after["containerID"], before["containerID"]);
    assert_eq!(after["restartCount"], 0);
    assert_eq!(limits(&cluster, "sleep 7001"), Some((30_000, 96 << 20)));
    let pod = cgroup(&cluster, "sleep 7001", "cpu").unwrap();
    let pod = pod.parent().unwrap();
    assert_eq!(number(pod, "cpu.cfs_quota_us", "cpu.max"), Some(50_000));

    // Its processor time changes in place, its memory does not.
    is_resized(&cluster, "fresh", &json!({"limits": {"cpu": "400m"}}));
    eventually("more processor time is given", LIMIT, || {
        (limits(&cluster, "sleep 7002")? == (40_000, 64 << 20)).then_some(())
    });
    assert_eq!(container(&cluster, "fresh")["restartCount"], 0);
    is_resized(&cluster, "fresh", &json!({"limits": {"memory": "128Mi"}}));
    eventually("the container has started again with more memory", LIMIT, || {
        let status = container(&cluster, "fresh");
        let given = status["resources"]["limits"]["memory"] == "128Mi" && status["restartCount"] == 1;
        (given && is_settled(&cluster) && limits(&cluster, "sleep 7002")? == (40_000, 128 << 20))
            .then_some(())
    });
    assert_eq!(container(&cluster, "free")["restartCount"], 0);
}

#[test]
fn what_no_resize_may_change_is_refused_at_once() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    cluster.apply(SIZED);
    eventually("the pod is ready", LIMIT, || is_settled(&cluster).then_some(()));
    let guaranteed = json!({"requests": {"cpu": "200m", "memory": "64Mi"}});
    // The other container keeps the pod from being Guaranteed, so this alone is allowed; both are not.
    is_resized(&cluster, "free", &guaranteed);
    is_refused(
        &cluster,
        "fresh",
        &guaranteed,
        "Pod QOS Class may not change as a result of resizing",
    );
    is_refused(
        &cluster,
        "free",
        &json!({"limits": {"cpu": null}}),
        "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
    );
    is_refused(
        &cluster,
        "free",
        &json!({"limits": {"ephemeral-storage": "1Gi"}}),
        "Forbidden: only cpu and memory resources are mutable",
    );
    is_refused(
        &cluster,
        "fresh",
        &json!({"requests": {"cpu": "1"}}),
        "must be less than or equal to cpu limit of 200m",
    );
    let patch = r#"{"spec": {"containers": [{"name": "free", "resources": {"limits": {"cpu": "1"}}}]}}"#;
    let output = cluster.try_flotilla(&["patch", "pod", "sized", "-p", patch]);
    assert!(
        text(&output.stderr).contains("pod updates may not change fields other than"),
        "{}",
        text(&output.stderr)
    );
    // More than the node has is no error of the request; the pod says it.
    is_resized(
        &cluster,
        "fresh",
        &json!({"limits": {"cpu": "2k"}, "requests": {"cpu": "1k"}}),
    );
    let pod = eventually("the node says that it has not so much", LIMIT, || {
        let pod = cluster.get(&["pod", "sized"]);
        (condition(&pod, "PodResizePending") == Some("True")).then_some(pod)
    });
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let pending = conditions
        .iter()
        .find(|one| one["type"] == "PodResizePending")
        .unwrap();
    assert_eq!(pending["reason"], "Infeasible");
    assert_eq!(container(&cluster, "fresh")["resources"]["limits"]["cpu"], "200m");
    is_resized(
        &cluster,
        "fresh",
        &json!({"limits": {"cpu": "250m"}, "requests": {"cpu": "100m"}}),
    );
    eventually("the smaller size is given", LIMIT, || {
        (limits(&cluster, "sleep 7002")? == (25_000, 64 << 20) && is_settled(&cluster)).then_some(())
    });
}
