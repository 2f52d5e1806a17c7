//! Creating, reading, changing and deleting objects.

use http::Method;
use serde_json::json;

use crate::cluster::{Cluster, deployment, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let cluster = Cluster::start().await;
    let created = cluster.config_map("a", json!({})).await;
    assert_eq!(created["kind"], "ConfigMap");
    let uri = format!("{MAPS}/a");
    assert_eq!(cluster.get(&uri).await.expect(200), created);
    let future = cluster.get(&format!("{uri}?resourceVersion=999999")).await;
    assert!(future.refused(504).contains("Too large resource version"));

    let mut changed = created.clone();
    changed["data"]["a"] = "c".into();
    let updated = cluster
        .send(Method::PUT, &uri, &[], &changed.to_string())
        .await
        .expect(200);
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    let stale = cluster
        .send(Method::PUT, &uri, &[], &changed.to_string())
        .await
        .refused(409);
    assert!(
        stale.starts_with("Operation cannot be fulfilled on configmaps \"a\": the object has been modified"),
        "{stale}"
    );

    let deleted = cluster.send(Method::DELETE, &uri, &[], "").await.expect(200);
    assert_eq!(deleted["status"], "Success");
    assert_eq!(deleted["details"]["uid"], created["metadata"]["uid"]);
    assert_eq!(cluster.get(&uri).await.refused(404), "configmaps \"a\" not found");
}

#[tokio::test]
async fn yaml_is_read_and_unknown_fields_are_told() {
    let cluster = Cluster::start().await;
    let yaml = "metadata: {name: a}\ndatta: {x: y}\n";
    let headers = [("content-type", "application/yaml")];
    let answer = cluster.send(Method::POST, MAPS, &headers, yaml).await;
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"datta\\\"\"");
    answer.expect(201);
    let uri = format!("{MAPS}?fieldValidation=Strict");
    let message = cluster
        .send(Method::POST, &uri, &headers, yaml)
        .await
        .refused(400);
    assert!(message.contains("unknown field \"datta\""), "{message}");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let cluster = Cluster::start().await;
    let before = cluster.replica.snapshot().revision();
    let uri = format!("{DEPLOYMENTS}?dryRun=All");
    let created = cluster.create(&uri, deployment("web")).await;
    assert_eq!(created["spec"]["progressDeadlineSeconds"], 600);
    assert_eq!(created["status"], json!({}));
    // `create --dry-run=server -o yaml` can be piped into `create`.
    assert_eq!(created["metadata"]["resourceVersion"], json!(null));
    let elsewhere = "/apis/apps/v1/namespaces/nowhere/deployments?dryRun=All";
    let body = deployment("web").to_string();
    let answer = cluster.send(Method::POST, elsewhere, &[], &body).await;
    assert_eq!(answer.refused(404), "namespaces \"nowhere\" not found");
    assert_eq!(cluster.replica.snapshot().revision(), before);
}

#[tokio::test]
async fn every_patch_language_works() {
    let cluster = Cluster::start().await;
    cluster.create(DEPLOYMENTS, deployment("web")).await;
    let uri = format!("{DEPLOYMENTS}/web");
    let strategic =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "demo:v2"}]}}}});
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let patched = cluster
        .send(Method::PATCH, &uri, &headers, &strategic.to_string())
        .await
        .expect(200);
    assert_eq!(
        patched["spec"]["template"]["spec"]["containers"][0]["image"],
        "demo:v2"
    );
    assert_eq!(patched["metadata"]["generation"], 2);

    let moved = json!({"metadata": {"namespace": "other"}});
    cluster.merge(&uri, moved).await.refused(400);
    let forced = cluster.merge(&format!("{uri}?force=true"), json!({})).await;
    assert_eq!(
        forced.refused(422),
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );

    let merged = cluster
        .merge(&uri, json!({"spec": {"replicas": 5}}))
        .await
        .expect(200);
    assert_eq!(merged["spec"]["replicas"], 5);

    let headers = [("content-type", "application/json-patch+json")];
    let operations = r#"[{"op": "test", "path": "/spec/replicas", "value": 5}, {"op": "replace", "path": "/spec/replicas", "value": 1}]"#;
    let patched = cluster
        .send(Method::PATCH, &uri, &headers, operations)
        .await
        .expect(200);
    assert_eq!(patched["spec"]["replicas"], 1);
    cluster
        .send(Method::PATCH, &uri, &headers, operations)
        .await
        .refused(422);

    let headers = [("content-type", "application/apply-patch+yaml")];
    let message = cluster
        .send(Method::PATCH, &uri, &headers, "{}")
        .await
        .refused(415);
    assert!(
        message.contains("server-side apply is not supported"),
        "{message}"
    );
}

#[tokio::test]
async fn status_and_scale_are_changed_by_paths_of_their_own() {
    let cluster = Cluster::start().await;
    cluster.create(DEPLOYMENTS, deployment("web")).await;
    let scale = format!("{DEPLOYMENTS}/web/scale");
    let found = cluster.get(&scale).await.expect(200);
    assert_eq!(
        (&found["kind"], &found["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    let scaled = cluster
        .merge(&scale, json!({"spec": {"replicas": 7}}))
        .await
        .expect(200);
    assert_eq!(scaled["spec"]["replicas"], 7);
    let mut body = scaled.clone();
    body["spec"]["replicas"] = 3.into();
    cluster
        .send(Method::PUT, &scale, &[], &body.to_string())
        .await
        .expect(200);

    let status = format!("{DEPLOYMENTS}/web/status");
    let patch = json!({"status": {"readyReplicas": 1, "replicas": 1}, "spec": {"replicas": 9}});
    let patched = cluster.merge(&status, patch).await.expect(200);
    assert_eq!(patched["status"]["readyReplicas"], 1);
    assert_eq!(patched["spec"]["replicas"], 3);
}

#[tokio::test]
async fn a_bound_pod_goes_after_its_grace_and_others_at_once() {
    let cluster = Cluster::start().await;
    cluster
        .create("/api/v1/nodes", json!({"metadata": {"name": "n1"}}))
        .await;
    cluster.create(PODS, pod("a")).await;
    cluster.create(PODS, pod("b")).await;
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    cluster.create(&format!("{PODS}/a/binding"), binding).await;
    let pending = cluster
        .send(Method::DELETE, &format!("{PODS}/a"), &[], "")
        .await
        .expect(200);
    assert_eq!(pending["kind"], "Pod");
    assert_eq!(pending["metadata"]["deletionGracePeriodSeconds"], 30);
    let uri = format!("{PODS}/b/eviction");
    let other = r#"{"metadata": {"name": "a"}}"#;
    cluster.send(Method::POST, &uri, &[], other).await.refused(400);
    let gone = cluster.send(Method::POST, &uri, &[], "{}").await;
    assert_eq!(gone.expect(201)["status"], "Success");
    cluster.get(&format!("{PODS}/b")).await.refused(404);
    cluster.create(PODS, pod("c")).await;
    let uri = format!("{PODS}/c");
    let gone = cluster.send(Method::DELETE, &uri, &[], "").await.expect(200);
    assert_eq!(gone["kind"], "Pod");
}

#[tokio::test]
async fn logs_are_streamed_until_they_fail() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("a")).await;
    let unassigned = cluster.get(&format!("{PODS}/a/log")).await;
    assert_eq!((unassigned.code, unassigned.text.as_str()), (200, ""));
    cluster
        .create("/api/v1/nodes", json!({"metadata": {"name": "n1"}}))
        .await;
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    cluster.create(&format!("{PODS}/a/binding"), binding).await;
    let answer = cluster.get(&format!("{PODS}/a/log?tailLines=3")).await;
    assert_eq!((answer.code, answer.text.as_str()), (200, "a tail=Some(3)\n"));
    cluster.get(&format!("{PODS}/b/log")).await.refused(404);
}

#[tokio::test]
async fn a_token_lets_its_account_in_until_the_account_goes() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster
        .create(accounts, json!({"metadata": {"name": "robot"}}))
        .await;
    let uri = format!("{accounts}/robot/token");
    // kubectl sends the time of a status that it does not know yet as null.
    let request = json!({"spec": {"audiences": []}, "status": {"token": "", "expirationTimestamp": null}});
    let answer = cluster.create(&uri, request).await;
    let bearer = format!("Bearer {}", answer["status"]["token"].as_str().unwrap());
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask = async || {
        let headers = [("authorization", bearer.as_str())];
        let response = cluster.open_as(None, Method::POST, whoami, &headers, "{}").await;
        crate::cluster::read(response).await
    };
    let review = ask().await.expect(201);
    assert_eq!(
        review["status"]["userInfo"]["username"],
        "system:serviceaccount:default:robot"
    );
    cluster
        .send(Method::DELETE, &format!("{accounts}/robot"), &[], "")
        .await
        .expect(200);
    assert_eq!(ask().await.refused(401), "Unauthorized");
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = Cluster::start().await;
    cluster.config_map("a", json!({"x": "1"})).await;
    cluster.config_map("b", json!({"x": "2"})).await;
    let deleted = cluster
        .send(Method::DELETE, &format!("{MAPS}?labelSelector=x%3D1"), &[], "")
        .await
        .expect(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 1);
    let left = cluster.get(MAPS).await.expect(200);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
}

#[tokio::test]
async fn events_are_seen_through_both_groups() {
    let cluster = Cluster::start().await;
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "Tested", "type": "Normal",
        "action": "Testing", "note": "hello", "reportingController": "test", "reportingInstance": "test-1",
        "regarding": {"kind": "Pod", "name": "a", "namespace": "default"},
    });
    let created = cluster
        .create("/apis/events.k8s.io/v1/namespaces/default/events", event)
        .await;
    assert_eq!(created["note"], "hello");
    let core = cluster
        .get("/api/v1/namespaces/default/events/e")
        .await
        .expect(200);
    assert_eq!(
        (&core["message"], &core["apiVersion"]),
        (&json!("hello"), &json!("v1"))
    );
    let list = cluster.get("/apis/events.k8s.io/v1/events").await.expect(200);
    assert_eq!(list["items"][0]["regarding"]["name"], "a");
}

#[tokio::test]
async fn a_namespace_goes_when_its_content_has_been_seen_to() {
    let cluster = Cluster::start().await;
    let uri = "/api/v1/namespaces/x";
    let created = cluster
        .create("/api/v1/namespaces", json!({"metadata": {"name": "x"}}))
        .await;
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    let pending = cluster.send(Method::DELETE, uri, &[], "").await.expect(200);
    assert_eq!(pending["status"]["phase"], "Terminating");
    let map = json!({"metadata": {"name": "late"}}).to_string();
    let message = cluster
        .send(Method::POST, &format!("{uri}/configmaps"), &[], &map)
        .await
        .refused(403);
    assert!(message.contains("because it is being terminated"), "{message}");
    let mut body = pending.clone();
    body["spec"]["finalizers"] = json!([]);
    cluster
        .send(Method::PUT, &format!("{uri}/finalize"), &[], &body.to_string())
        .await
        .expect(200);
    cluster.get(uri).await.refused(404);
}
