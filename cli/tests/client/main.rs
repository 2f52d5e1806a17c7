//! The client verbs as a user sees them, against a scripted API server.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod fake;

use expect_test::expect;
use serde_json::{Value, json};

use fake::{FakeServer, not_found};

fn pods(names: &[&str]) -> Value {
    let rows: Vec<Value> = names
        .iter()
        .map(|name| json!({"cells": [name, "1/1", "Running", 0, "5m"], "object": {"metadata": {"name": name, "namespace": "default"}}}))
        .collect();
    let columns =
        ["Name", "Ready", "Status", "Restarts", "Age"].map(|name| json!({"name": name, "priority": 0}));
    json!({"kind": "Table", "metadata": {"resourceVersion": "5"}, "columnDefinitions": columns, "rows": rows})
}

#[test]
fn get_prints_the_servers_tables() {
    let server = FakeServer::start(|_, path| match path {
        "/api/v1/namespaces/default/pods?limit=500" => (200, pods(&["web-1", "web-22"])),
        "/api/v1/namespaces/default/configmaps?limit=500" => (200, json!({"kind": "Table", "rows": []})),
        "/apis/apps/v1/namespaces/default/deployments?limit=500" => (200, pods(&["web"])),
        path => not_found("pods", path.rsplit('/').next().unwrap_or_default()),
    });
    expect![[r#"
        NAME     READY   STATUS    RESTARTS   AGE
        web-1    1/1     Running   0          5m
        web-22   1/1     Running   0          5m
    "#]]
    .assert_eq(&server.run(&["get", "po"]));
    expect![[r#"
        NAME         READY   STATUS    RESTARTS   AGE
        pod/web-1    1/1     Running   0          5m
        pod/web-22   1/1     Running   0          5m

        NAME                  READY   STATUS    RESTARTS   AGE
        deployment.apps/web   1/1     Running   0          5m
    "#]]
    .assert_eq(&server.run(&["get", "all"]));
    expect![[r#"
        stderr: No resources found in default namespace.
    "#]]
    .assert_eq(&server.run(&["get", "cm"]));
    expect![[r#"
        stderr: Error from server (NotFound): pods "nope" not found
        exit code 1
    "#]]
    .assert_eq(&server.run(&["get", "pod", "nope"]));
    expect![""].assert_eq(&server.run(&["get", "pod", "nope", "--ignore-not-found"]));
    expect![[r#"
        stderr: error: the server doesn't have a resource type "podz", did you mean "pods"?
        exit code 1
    "#]]
    .assert_eq(&server.run(&["get", "podz"]));
}

#[test]
fn apply_creates_and_then_sends_only_what_changed() {
    let server = FakeServer::start(|method, path| match (method, path) {
        ("GET", "/api/v1/namespaces/default/configmaps/new") => not_found("configmaps", "new"),
        ("GET", "/api/v1/namespaces/default/configmaps/old") => (
            200,
            json!({"metadata": {"name": "old", "namespace": "default", "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{\"data\":{\"a\":\"1\",\"b\":\"2\"}}"}}, "data": {"a": "1", "b": "2", "c": "3"}}),
        ),
        ("POST" | "PATCH", _) => (
            201,
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}}),
        ),
        _ => not_found("configmaps", path),
    });
    server.write("maps.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\ndata: {a: '1'}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: old}\ndata: {a: '1'}\n");
    expect![[r#"
        configmap/new created
        configmap/old configured
    "#]]
    .assert_eq(&server.run(&["apply", "-f", "maps.yaml"]));
    expect![[r#"
        GET /api/v1/namespaces/default/configmaps/new 
        POST /api/v1/namespaces/default/configmaps?fieldManager=flotilla-apply&fieldValidation=Strict {"apiVersion":"v1","data":{"a":"1"},"kind":"ConfigMap","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"data\":{\"a\":\"1\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"new\",\"namespace\":\"default\"}}\n"},"name":"new","namespace":"default"}}
        GET /api/v1/namespaces/default/configmaps/old 
        PATCH /api/v1/namespaces/default/configmaps/old?fieldManager=flotilla-apply&fieldValidation=Strict {"apiVersion":"v1","data":{"b":null},"kind":"ConfigMap","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"data\":{\"a\":\"1\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"old\",\"namespace\":\"default\"}}\n"}}}"#]].assert_eq(&server.requests());
}

#[test]
fn a_manifest_with_mistakes_is_not_sent() {
    let server = FakeServer::start(|_, path| not_found("things", path));
    server.write("bad.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replcas: 3\n---\napiVersion: v1\nkind: pod\nmetadata:\n  name: a\n");
    expect![[r#"
        stderr: error: bad.yaml:6:3: spec: unknown field "replcas", did you mean "replicas"?
        stderr:   5 | spec:
        stderr:   6 |   replcas: 3
        stderr:     |   ^
        stderr: bad.yaml:9:1: unknown kind "pod" in apiVersion "v1", did you mean "Pod"?
        stderr:   8 | apiVersion: v1
        stderr:   9 | kind: pod
        stderr:     | ^
        exit code 1
    "#]]
    .assert_eq(&server.run(&["apply", "-f", "bad.yaml"]));
    server.write(
        "worse.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n   labels: {}\n",
    );
    expect![[r#"
        stderr: error: worse.yaml:5:10: mapping values are not allowed in this context: check the indentation, and quote text that has ": " in it
        stderr:   4 |   name: web
        stderr:   5 |    labels: {}
        stderr:     |          ^
        exit code 1
    "#]].assert_eq(&server.run(&["apply", "-f", "worse.yaml"]));
    expect![""].assert_eq(&server.requests());
}

#[test]
fn a_servers_refusal_names_the_place_in_the_file() {
    let server = FakeServer::start(|method, _| match method {
        "GET" => not_found("deployments.apps", "web"),
        _ => (
            422,
            json!({"kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422, "message": "…", "details": {"kind": "Deployment", "name": "web",
                "causes": [{"reason": "FieldValueInvalid", "field": "spec.replicas", "message": "Invalid value: -1: must be greater than or equal to 0"}]}}),
        ),
    });
    server.write(
        "web.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: -1\n",
    );
    expect![[r#"
        stderr: The Deployment "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0
        stderr:   web.yaml:6:3: spec.replicas
        exit code 1
    "#]].assert_eq(&server.run(&["apply", "-f", "web.yaml"]));
}

#[test]
fn delete_waits_until_the_object_is_gone() {
    let server = FakeServer::start(|method, path| match (method, path) {
        ("DELETE", _) => (
            200,
            json!({"kind": "Pod", "metadata": {"name": "web", "uid": "u1"}}),
        ),
        ("GET", path) if path.contains("watch=true") => (
            200,
            json!([{"type": "DELETED", "object": {"metadata": {"name": "web", "uid": "u1"}}}]),
        ),
        _ => (
            200,
            json!({"kind": "Pod", "metadata": {"name": "web", "uid": "u1", "resourceVersion": "7"}}),
        ),
    });
    expect![[r#"
        pod "web" deleted
    "#]]
    .assert_eq(&server.run(&["delete", "pod", "web"]));
    expect![[r#"
        DELETE /api/v1/namespaces/default/pods/web {"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"}
        GET /api/v1/namespaces/default/pods/web 
        GET /api/v1/namespaces/default/pods?watch=true&resourceVersion=7&fieldSelector=metadata.name%3Dweb "#]].assert_eq(&server.requests());
}

#[test]
fn rollout_status_follows_the_deployment() {
    fn deployment(updated: i64, available: i64) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "web", "generation": 1, "resourceVersion": "7"}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 1, "replicas": 3, "updatedReplicas": updated, "availableReplicas": available}})
    }
    let server = FakeServer::start(|_, path| {
        if path.contains("watch=true") {
            let event = |object: Value| json!({"type": "MODIFIED", "object": object});
            (
                200,
                json!([
                    event(deployment(3, 1)),
                    event(deployment(3, 1)),
                    event(deployment(3, 3))
                ]),
            )
        } else {
            (200, deployment(1, 1))
        }
    });
    expect![[r#"
        Waiting for deployment "web" rollout to finish: 1 out of 3 new replicas have been updated...
        Waiting for deployment "web" rollout to finish: 1 of 3 updated replicas are available...
        deployment "web" successfully rolled out
    "#]]
    .assert_eq(&server.run(&["rollout", "status", "deploy/web"]));
    expect![[r#"
        Waiting for deployment "web" rollout to finish: 1 out of 3 new replicas have been updated...
    "#]]
    .assert_eq(&server.run(&["rollout", "status", "deploy/web", "--watch=false"]));
}

#[test]
fn a_server_that_is_away_is_told_of() {
    let server = FakeServer::start(|_, path| not_found("things", path));
    // A port that nobody listens on any more.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    server.write("kubeconfig", &json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": format!("http://{free}")}}],
        "users": [{"name": "a", "user": {}}], "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }).to_string());
    expect![[r#"
        stderr: The connection to the server ADDRESS was refused - did you specify the right host or port?
        stderr: Is the cluster up? `flotilla local status` tells; `flotilla local up` starts one.
        exit code 1
    "#]]
    .assert_eq(&server.run(&["get", "pods"]).replace(&free.to_string(), "ADDRESS"));
}

#[test]
fn patch_sends_what_it_is_given_and_says_what_came_of_it() {
    let server = FakeServer::start(|method, path| match (method, path) {
        ("GET", path) if path.starts_with("/api/v1/namespaces/default/pods/web") => {
            (200, json!({"metadata": {"name": "web", "resourceVersion": "1"}}))
        }
        ("PATCH", "/api/v1/namespaces/default/pods/web/resize?fieldManager=flotilla-patch") => {
            (200, json!({"metadata": {"name": "web", "resourceVersion": "2"}}))
        }
        ("PATCH", path) if path.contains("/pods/web?") => {
            (200, json!({"metadata": {"name": "web", "resourceVersion": "1"}}))
        }
        _ => not_found("pods", "nope"),
    });
    let resize = [
        "patch",
        "pod",
        "web",
        "--subresource",
        "resize",
        "-p",
        "{spec: {containers: []}}",
    ];
    expect!["pod/web patched\n"].assert_eq(&server.run(&resize));
    server.write("p.json", r#"[{"op":"add","path":"/a","value":1}]"#);
    let none = [
        "patch",
        "po/web",
        "--type=json",
        "--patch-file=p.json",
        "--dry-run=server",
    ];
    expect!["pod/web patched (no change) (server dry run)\n"].assert_eq(&server.run(&none));
    expect![[r#"
        GET /api/v1/namespaces/default/pods/web/resize 
        PATCH /api/v1/namespaces/default/pods/web/resize?fieldManager=flotilla-patch {"spec":{"containers":[]}}
        GET /api/v1/namespaces/default/pods/web 
        PATCH /api/v1/namespaces/default/pods/web?fieldManager=flotilla-patch&dryRun=All [{"op":"add","path":"/a","value":1}]"#]]
    .assert_eq(&server.requests());
    expect![[r#"
        stderr: Error from server (NotFound): pods "nope" not found
        exit code 1
    "#]]
    .assert_eq(&server.run(&["patch", "pod", "nope", "-p", "{}"]));
    expect![[r#"
        stderr: error: a patch of type json is a list of operations, like [{"op": "remove", "path": "/spec/x"}]
        exit code 1
    "#]]
    .assert_eq(&server.run(&["patch", "pod", "web", "--type", "json", "-p", "{}"]));
}
