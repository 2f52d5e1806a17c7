//! Probes, hooks, sidecars, ephemeral containers and last words, with real processes.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::time::Duration;

use flotilla_cluster_tests::{Cluster, condition, eventually, kubectls, succeed};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn pod(cluster: &Cluster, name: &str) -> Value {
    cluster.get(&["pod", name])
}

fn wait_ready(cluster: &Cluster, name: &str, wanted: &str) {
    eventually(&format!("{name} is ready: {wanted}"), LIMIT, || {
        (condition(&pod(cluster, name), "Ready") == Some(wanted)).then_some(())
    });
}

/// Waits for an event about a pod whose message begins like that.
fn wait_event(cluster: &Cluster, name: &str, reason: &str, message: &str) {
    let what = format!("event {reason} of {name}: {message}");
    eventually(&what, LIMIT, || {
        let events = cluster.get(&["events"]);
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let fits = |event: &Value| {
            event["involvedObject"]["name"] == name
                && event["reason"] == reason
                && event["message"]
                    .as_str()
                    .is_some_and(|text| text.starts_with(message))
        };
        events.iter().any(fits).then_some(())
    });
}

/// The status of a container, of whichever list.
fn container(pod: &Value, name: &str) -> Value {
    let lists = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    let all = lists
        .iter()
        .filter_map(|list| pod["status"][*list].as_array())
        .flatten();
    all.into_iter()
        .find(|status| status["name"] == name)
        .cloned()
        .unwrap_or_default()
}

const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  containers:
    - name: http
      image: flotilla.dev/demo:v1
      ports: [{name: web, containerPort: 8080}]
      startupProbe: {httpGet: {path: /version, port: web}, periodSeconds: 1, failureThreshold: 30}
      readinessProbe: {httpGet: {path: /healthz, port: web}, periodSeconds: 1, failureThreshold: 1}
      livenessProbe: {tcpSocket: {port: web}, periodSeconds: 1}
    - name: exec
      image: flotilla.test/busybox:latest
      command: [sh, -c, 'touch /tmp/well; sleep 3600']
      readinessProbe: {exec: {command: [test, -e, /tmp/well]}, periodSeconds: 1, failureThreshold: 1}
      livenessProbe:
        exec: {command: [sh, -c, 'test ! -e /tmp/sick']}
        periodSeconds: 1
        failureThreshold: 1
        terminationGracePeriodSeconds: 1
";

#[test]
fn probes_decide_on_readiness_and_on_life() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    cluster.apply(PROBED);
    wait_ready(&cluster, "probed", "True");
    cluster.flotilla(&["exec", "probed", "-c", "exec", "--", "rm", "/tmp/well"]);
    wait_ready(&cluster, "probed", "False");
    wait_event(&cluster, "probed", "Unhealthy", "Readiness probe failed:");
    let status = pod(&cluster, "probed");
    assert_eq!(container(&status, "http")["ready"], true);
    assert_eq!(container(&status, "exec")["restartCount"], 0);
    cluster.flotilla(&["exec", "probed", "-c", "exec", "--", "touch", "/tmp/sick"]);
    let told = "Container exec failed liveness probe, will be restarted";
    wait_event(&cluster, "probed", "Killing", told);
    wait_ready(&cluster, "probed", "True");
    assert_eq!(container(&pod(&cluster, "probed"), "exec")["restartCount"], 1);
}

const LAST_WORDS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: words}
spec:
  restartPolicy: Never
  initContainers:
    - name: side
      image: flotilla.test/busybox:latest
      restartPolicy: Always
      command: [sh, -c, 'trap \"exit 0\" TERM; touch /tmp/up; while true; do sleep 0.1; done']
      startupProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}
  containers:
    - name: file
      image: flotilla.test/busybox:latest
      command: [sh, -c, 'echo -n farewell > /dev/termination-log; exit 3']
    - name: log
      image: flotilla.test/busybox:latest
      terminationMessagePolicy: FallbackToLogsOnError
      command: [sh, -c, 'echo going down; exit 4']
";

#[test]
fn last_words_are_kept_and_sidecars_end_last() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    cluster.apply(LAST_WORDS);
    let done = eventually("words has failed", LIMIT, || {
        let pod = pod(&cluster, "words");
        let side = container(&pod, "side")["state"]["terminated"]["exitCode"] == 0;
        (pod["status"]["phase"] == "Failed" && side).then_some(pod)
    });
    let message = |name: &str| container(&done, name)["state"]["terminated"]["message"].clone();
    assert_eq!(message("file"), "farewell");
    assert_eq!(message("log"), "going down\n");
    let finished = |name: &str| {
        let status = container(&done, name);
        status["state"]["terminated"]["finishedAt"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(finished("side") >= finished("log"));
}

const HOOKED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: hooked}
spec:
  terminationGracePeriodSeconds: 3
  containers:
    - name: web
      image: flotilla.test/busybox:latest
      command: [sh, -c, 'trap \"echo term; exit 0\" TERM; while true; do sleep 0.1; done']
      lifecycle:
        postStart: {exec: {command: [sh, -c, 'echo started > /proc/1/fd/1']}}
        preStop: {exec: {command: [sh, -c, 'echo stopping > /proc/1/fd/1']}}
    - name: bad
      image: flotilla.test/busybox:latest
      command: [sleep, '3600']
      lifecycle: {postStart: {exec: {command: ['false']}}}
";

#[test]
fn hooks_run_after_the_start_and_before_the_end() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    cluster.apply(HOOKED);
    wait_event(&cluster, "hooked", "FailedPostStartHook", "PostStartHook failed");
    let logs = || cluster.flotilla(&["logs", "hooked", "-c", "web"]);
    eventually("the hook has spoken", LIMIT, || {
        logs().contains("started").then_some(())
    });
    let mut follow = cluster.command(
        flotilla_cluster_tests::flotilla_binary(),
        &["logs", "-f", "hooked", "-c", "web"],
    );
    let follow = follow.stdout(std::process::Stdio::piped()).spawn().unwrap();
    cluster.flotilla(&["delete", "pod", "hooked"]);
    let said = follow.wait_with_output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let (hook, end) = (said.find("stopping"), said.find("term"));
    assert!(hook.is_some() && hook < end, "{said}");
}

#[test]
fn a_debugger_joins_a_running_pod() {
    let Some(kubectl) = kubectls().into_iter().next_back() else {
        return;
    };
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: quiet}, spec: {containers: [{name: web, image: 'flotilla.dev/demo:v1'}]}}",
    );
    wait_ready(&cluster, "quiet", "True");
    let words = [
        "debug",
        "quiet",
        "--image=flotilla.test/busybox:latest",
        "--image-pull-policy=IfNotPresent",
        "--container=look",
        "--target=web",
        "--",
        "sh",
        "-c",
        // It is among the processes of its target.
        "grep -q demo /proc/1/cmdline && exit 7",
    ];
    succeed(cluster.command(kubectl, &words));
    let status = eventually("the debugger has ended", LIMIT, || {
        let status = container(&pod(&cluster, "quiet"), "look");
        (status["state"]["terminated"]["exitCode"] == 7).then_some(status)
    });
    assert_eq!(status["restartCount"], 0);
    wait_ready(&cluster, "quiet", "True");
}

const ON_THE_WIRE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: wired}
spec:
  terminationGracePeriodSeconds: 3
  initContainers:
    - name: demo
      image: flotilla.dev/demo:v1
      restartPolicy: Always
      args: [--grpc-port, '9090']
      startupProbe: {grpc: {port: 9090}, periodSeconds: 1}
      readinessProbe: {grpc: {port: 9090}, periodSeconds: 1, failureThreshold: 1}
      livenessProbe: {grpc: {port: 9090, service: demo}, periodSeconds: 2, failureThreshold: 3}
  containers:
    - name: main
      image: flotilla.test/busybox:latest
      command: [sh, -c, 'trap \"exit 0\" TERM; while true; do sleep 0.1; done']
      readinessProbe: {httpGet: {host: SERVER, port: 6443, scheme: HTTPS, path: /readyz}, periodSeconds: 1}
      lifecycle:
        postStart: {httpGet: {port: 8080, path: '/log?line=hook+begins'}}
        preStop: {httpGet: {port: 8080, path: '/log?line=hook+ends'}}
    - name: stranger
      image: flotilla.test/busybox:latest
      command: [sleep, '3600']
      readinessProbe:
        httpGet: {host: SERVER, port: 6443, scheme: HTTPS, path: /api/v1/secrets}
        periodSeconds: 1
        failureThreshold: 1
";

/// The API server is a real one with TLS, of an authority that no probe knows; the demo has gRPC's health protocol.
#[test]
fn probes_and_hooks_speak_tls_grpc_and_http() {
    let cluster = Cluster::up(1, 0);
    cluster.import_image("busybox");
    let status = cluster.status();
    let address = status["nodes"][0]["address"].as_str().unwrap();
    cluster.apply(&ON_THE_WIRE.replace("SERVER", address));
    let is_ready = |name: &str| container(&pod(&cluster, "wired"), name)["ready"] == true;
    eventually("what answers is ready", LIMIT, || {
        (is_ready("demo") && is_ready("main")).then_some(())
    });
    wait_event(
        &cluster,
        "wired",
        "Unhealthy",
        "Readiness probe failed: HTTP probe failed with statuscode: 403",
    );
    assert!(!is_ready("stranger"));
    let logs = cluster.flotilla(&["logs", "wired", "-c", "demo"]);
    assert!(logs.contains("hook begins"), "{logs}");
    let turn_bad = "http://127.0.0.1:8080/healthz?set=bad";
    let words = ["exec", "wired", "-c", "main", "--", "wget", "-q", "-O", "-"];
    cluster.flotilla(&[&words[..], &["--post-data=x", turn_bad]].concat());
    let told = "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")";
    wait_event(&cluster, "wired", "Unhealthy", told);
    eventually("a new demo is well", LIMIT, || {
        let demo = container(&pod(&cluster, "wired"), "demo");
        (demo["restartCount"] == 1 && demo["ready"] == true).then_some(())
    });
    let mut follow = cluster.command(
        flotilla_cluster_tests::flotilla_binary(),
        &["logs", "-f", "wired", "-c", "demo"],
    );
    let follow = follow.stdout(std::process::Stdio::piped()).spawn().unwrap();
    cluster.flotilla(&["delete", "pod", "wired"]);
    let said = follow.wait_with_output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("hook ends"), "{said}");
}
