//! The same work through the real kubectl: Debian's old one and whatever newer one is installed.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use flotilla_cluster_tests::{Cluster, eventually, kubectls, name_of, root, succeed};

const LIMIT: Duration = Duration::from_secs(30);

struct Kubectl<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
}

impl Kubectl<'_> {
    fn run(&self, words: &[&str]) -> String {
        succeed(self.cluster.command(&self.program, words))
    }

    fn says(&self, words: &[&str], expected: &[&str]) {
        let said = self.run(words);
        for expected in expected {
            assert!(
                said.contains(expected),
                "kubectl {words:?} does not say {expected:?}:\n{said}"
            );
        }
    }
}

fn web() -> String {
    root()
        .join("deploy/examples/web.yaml")
        .to_string_lossy()
        .into_owned()
}

/// The whole session with one kubectl.
fn work_with(program: &Path) {
    let cluster = Cluster::up(1, 1);
    let kubectl = Kubectl {
        cluster: &cluster,
        program: program.to_owned(),
    };
    let web = web();
    kubectl.says(&["apply", "-f", &web], &["deployment.apps/web created"]);
    kubectl.says(&["apply", "-f", &web], &["deployment.apps/web unchanged"]);
    kubectl.says(
        &["rollout", "status", "deployment/web"],
        &["deployment \"web\" successfully rolled out"],
    );
    look(&kubectl);
    scale(&kubectl);
    roll(&kubectl);
    relabel(&kubectl);
    kubectl.says(&["delete", "-f", &web], &["deployment.apps \"web\" deleted"]);
    eventually("all pods are gone", LIMIT, || {
        let left = cluster.get(&["pods"])["items"]
            .as_array()
            .is_some_and(Vec::is_empty);
        left.then_some(())
    });
}

fn look(kubectl: &Kubectl<'_>) {
    kubectl.says(&["get", "nodes"], &["STATUS", "server-1", "agent-1", "Ready"]);
    kubectl.says(
        &["get", "deployments,pods", "-o", "wide"],
        &["deployment.apps/web", "3/3", "Running", "pod/web-"],
    );
    kubectl.says(
        &["get", "all"],
        &["pod/web-", "deployment.apps/web", "replicaset.apps/web-"],
    );
    kubectl.says(
        &["describe", "deployment", "web"],
        &["RollingUpdateStrategy", "Scaled up replica set web-"],
    );
    let pod = name_of(&kubectl.cluster.ready_pods("app=web", 3, LIMIT)[0]);
    // Events may come a moment after what they tell of.
    eventually("the pod's story is told", LIMIT, || {
        let said = kubectl.run(&["describe", "pod", &pod]);
        let story = [
            "Successfully assigned",
            "Container image \"flotilla.dev/demo:v1\" already present on machine",
            "Started container web",
        ];
        story.iter().all(|line| said.contains(line)).then_some(())
    });
    kubectl.cluster.fetch(&pod, 8080, "/log?line=hello-log");
    eventually("the log has the line", LIMIT, || {
        kubectl
            .run(&["logs", &pod, "--tail=5"])
            .contains("hello-log")
            .then_some(())
    });
}

fn scale(kubectl: &Kubectl<'_>) {
    for (replicas, count) in [("--replicas=5", 5), ("--replicas=3", 3)] {
        kubectl.says(
            &["scale", "deployment/web", replicas],
            &["deployment.apps/web scaled"],
        );
        kubectl.cluster.ready_pods("app=web", count, LIMIT);
    }
}

fn roll(kubectl: &Kubectl<'_>) {
    kubectl.says(
        &["set", "image", "deployment/web", "web=flotilla.dev/demo:v2"],
        &["image updated"],
    );
    kubectl.says(
        &["rollout", "status", "deployment/web"],
        &["successfully rolled out"],
    );
    kubectl.says(&["rollout", "history", "deployment/web"], &["REVISION", "1", "2"]);
    kubectl.says(
        &["rollout", "undo", "deployment/web"],
        &["deployment.apps/web rolled back"],
    );
    kubectl.says(
        &["rollout", "status", "deployment/web"],
        &["successfully rolled out"],
    );
    let pods = kubectl.cluster.ready_pods("app=web", 3, LIMIT);
    assert!(
        pods.iter()
            .all(|pod| pod["spec"]["containers"][0]["image"] == "flotilla.dev/demo:v1")
    );
}

/// A pod that loses its label is replaced; when it gets it back there is one too many.
fn relabel(kubectl: &Kubectl<'_>) {
    let pod = name_of(&kubectl.cluster.ready_pods("app=web", 3, LIMIT)[0]);
    kubectl.run(&["label", "pod", &pod, "app-"]);
    let replaced = kubectl.cluster.ready_pods("app=web", 3, LIMIT);
    assert!(replaced.iter().all(|found| name_of(found) != pod));
    kubectl.run(&["label", "pod", &pod, "app=web"]);
    kubectl.cluster.ready_pods("app=web", 3, LIMIT);
}

#[test]
fn debians_kubectl_works() {
    work_with(&kubectls()[0]);
}

#[test]
fn the_newest_kubectl_there_is_works() {
    work_with(kubectls().last().unwrap());
}
