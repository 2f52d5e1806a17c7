//! Input that is wrong: each gets a clear answer, and the cluster goes on.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{fmt::Write as _, process::Output};

use flotilla_cluster_tests::{Cluster, text};

struct Refused<'a> {
    cluster: &'a Cluster,
}

impl Refused<'_> {
    /// Applies the manifest, which must fail, and must say all of `expected`.
    fn says(&self, manifest: &str, expected: &[&str]) {
        let output = self.cluster.flotilla_with_input(&["apply", "-f", "-"], manifest);
        self.check(&output, expected);
    }

    fn check(&self, output: &Output, expected: &[&str]) {
        let said = text(&output.stderr);
        assert!(
            !output.status.success(),
            "it was accepted: {}",
            text(&output.stdout)
        );
        assert!(!said.contains("panicked"), "{said}");
        for expected in expected {
            assert!(said.contains(expected), "it does not say {expected:?}:\n{said}");
        }
    }
}

fn deployment(labels: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: {labels}}}}}\n    spec:\n      containers: [{{name: web, image: 'flotilla.dev/demo:v1'}}]\n"
    )
}

fn large() -> String {
    let mut manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large}\ndata:\n".to_owned();
    for line in 0..60_000 {
        writeln!(manifest, "  key{line}: {}", "x".repeat(60)).unwrap();
    }
    manifest
}

const BOMB: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: bomb}
a: &a [x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]
e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]
f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]
g: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f]
h: &h [*g, *g, *g, *g, *g, *g, *g, *g, *g]
i: [*h, *h, *h, *h, *h, *h, *h, *h, *h]
";

#[test]
fn wrong_input_is_answered_clearly_and_nothing_is_lost() {
    let cluster = Cluster::up(1, 0);
    let refused = Refused { cluster: &cluster };
    cluster.flotilla(&["create", "configmap", "taken", "--from-literal=a=b"]);

    refused.says(
        "apiVersion: v1\nkind: ConfigMap\n  metadata: {name: x}\n",
        &["3", "metadata"],
    );
    refused.says(
        "apiVerison: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
        &["apiVerison", "did you mean", "apiVersion", ":1:1"],
    );
    refused.says(
        "apiVersion: v1\nkind: pod\nmetadata: {name: x}\n",
        &["pod", "did you mean", "Pod", ":2:"],
    );
    refused.says(
        "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n",
        &["Nonsense"],
    );
    refused.says("apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n", &["name"]);
    refused.says(&large(), &["large"]);
    refused.says(BOMB, &["alias"]);
    refused.says(
        &deployment("other"),
        &["selector", "does not match template", "labels"],
    );

    let taken = cluster.try_flotilla(&["create", "configmap", "taken", "--from-literal=a=c"]);
    refused.check(
        &taken,
        &[
            "Error from server (AlreadyExists)",
            "configmaps \"taken\" already exists",
        ],
    );
    let stale =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: taken, resourceVersion: '1'}\ndata: {a: c}\n";
    refused.says(stale, &["the object has been modified"]);

    // The API itself is as clear to clients that check nothing.
    let strict = cluster.try_flotilla(&["get", "--raw", "/apis/nothing/v1/here"]);
    refused.check(&strict, &["NotFound"]);

    let kept = cluster.get(&["configmap", "taken"]);
    assert_eq!(kept["data"]["a"], "b");
    assert_eq!(cluster.get(&["node", "server-1"])["metadata"]["name"], "server-1");
}
