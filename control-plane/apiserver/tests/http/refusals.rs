//! Requests that must be refused, and how.

use flotilla_apiserver::User;
use http::Method;
use serde_json::json;

use crate::cluster::{Answer, Cluster, deployment, pod, read};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn as_nobody(cluster: &Cluster, headers: &[(&str, &str)]) -> Answer {
    read(cluster.open_as(None, Method::GET, PODS, headers, "").await).await
}

#[tokio::test]
async fn strangers_are_told_what_they_may_not_do() {
    let cluster = Cluster::start().await;
    assert_eq!(
        as_nobody(&cluster, &[]).await.refused(403),
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(
        as_nobody(&cluster, &[("authorization", "Bearer x")])
            .await
            .refused(401),
        "Unauthorized"
    );
    let node = User {
        name: "system:node:a".into(),
        groups: vec!["system:nodes".into()],
    };
    let answer = read(
        cluster
            .open_as(Some(node), Method::DELETE, &format!("{PODS}/a"), &[], "")
            .await,
    )
    .await;
    let message = answer.refused(403);
    assert!(
        message.starts_with("pods \"a\" is forbidden: User \"system:node:a\" cannot delete"),
        "{message}"
    );
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let cluster = Cluster::start().await;
    for path in [
        "/nowhere",
        "/apis/nowhere/v1",
        "/api/v1/things",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/pods/a",
        &format!("{PODS}/a/b"),
    ] {
        assert_eq!(
            cluster.get(path).await.refused(404),
            "the server could not find the requested resource",
            "{path}"
        );
    }
    cluster.send(Method::PUT, PODS, &[], "{}").await.refused(405);
    for method in [Method::DELETE, Method::POST] {
        // Over all namespaces, objects can only be read.
        cluster.send(method, "/api/v1/pods", &[], "").await.refused(405);
    }
    cluster.send(Method::POST, "/version", &[], "").await.refused(405);
    cluster
        .send(Method::POST, &format!("{PODS}/a/log"), &[], "")
        .await
        .refused(405);
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let cluster = Cluster::start().await;
    let cbor = [("content-type", "application/cbor")];
    cluster.send(Method::POST, PODS, &cbor, "k8s").await.refused(415);
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    cluster
        .send(Method::POST, PODS, &protobuf, "k8s")
        .await
        .refused(400);
    cluster.send(Method::POST, PODS, &[], "{").await.refused(400);
    cluster.send(Method::POST, PODS, &[], "").await.refused(400);
    let yaml = [("content-type", "application/yaml")];
    cluster.send(Method::POST, PODS, &yaml, "a: [").await.refused(400);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    cluster.send(Method::POST, PODS, &yaml, bomb).await.refused(400);
    let large = format!(
        "{{\"metadata\":{{\"name\":\"a\"}},\"x\":\"{}\"}}",
        "y".repeat(4 << 20)
    );
    let message = cluster.send(Method::POST, PODS, &[], &large).await.refused(413);
    assert_eq!(message, "Request entity too large: limit is 3145728");
    cluster
        .send(Method::GET, PODS, &[("accept", "text/html")], "")
        .await
        .refused(406);
}

#[tokio::test]
async fn objects_that_make_no_sense() {
    let cluster = Cluster::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let mut other = deployment("web");
    other["spec"]["selector"]["matchLabels"]["app"] = "other".into();
    let answer = cluster
        .send(Method::POST, deployments, &[], &other.to_string())
        .await;
    let body = answer.expect(422);
    assert_eq!(
        body["details"]["causes"][0]["field"],
        "spec.template.metadata.labels"
    );
    let nameless = json!({"metadata": {}, "spec": {"containers": [{"name": "a", "image": "x"}]}});
    let message = cluster
        .send(Method::POST, PODS, &[], &nameless.to_string())
        .await
        .refused(422);
    assert!(message.contains("name or generateName is required"), "{message}");
    let wrong_kind = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a"}});
    cluster
        .send(Method::POST, PODS, &[], &wrong_kind.to_string())
        .await
        .refused(400);
    let elsewhere = "/api/v1/namespaces/nowhere/pods";
    assert_eq!(
        cluster
            .send(Method::POST, elsewhere, &[], &pod("a").to_string())
            .await
            .refused(404),
        "namespaces \"nowhere\" not found"
    );
    cluster.create(PODS, pod("a")).await;
    assert_eq!(
        cluster
            .send(Method::POST, PODS, &[], &pod("a").to_string())
            .await
            .refused(409),
        "pods \"a\" already exists"
    );
    let mut renamed = pod("b");
    renamed["metadata"]["name"] = "c".into();
    let message = cluster
        .send(Method::PUT, &format!("{PODS}/a"), &[], &renamed.to_string())
        .await
        .refused(400);
    assert_eq!(
        message,
        "the name of the object (c) does not match the name on the URL (a)"
    );
}

#[tokio::test]
async fn a_pod_without_an_address_cannot_be_reached() {
    let cluster = Cluster::start().await;
    cluster.create(PODS, pod("a")).await;
    cluster.get(&format!("{PODS}/a/proxy/")).await.refused(503);
}
