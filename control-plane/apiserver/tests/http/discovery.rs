//! Discovery, version, health, OpenAPI.

use http::Method;
use serde_json::json;

use crate::cluster::{Cluster, read};

#[tokio::test]
async fn every_listed_path_can_be_read() {
    let cluster = Cluster::start().await;
    let root = cluster.get("/").await.expect(200);
    for path in root["paths"].as_array().unwrap() {
        let path = path.as_str().unwrap();
        assert_eq!(cluster.get(path).await.code, 200, "{path}");
    }
}

#[tokio::test]
async fn health_and_version_are_open_to_everybody() {
    let cluster = Cluster::start().await;
    for path in ["/version", "/healthz", "/livez/ping", "/readyz?verbose"] {
        let answer = read(cluster.open_as(None, Method::GET, path, &[], "").await).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.text);
    }
    let ready = cluster.get("/readyz?verbose").await;
    assert!(
        ready.text.contains("[+]leader ok") && ready.text.ends_with("readyz check passed\n"),
        "{}",
        ready.text
    );
    assert_eq!(
        cluster.get("/version").await.expect(200)["gitVersion"],
        "v1.35.0+flotilla"
    );
    cluster.get("/readyz/nothing").await.refused(404);
}

#[tokio::test]
async fn discovery_comes_plain_and_aggregated() {
    let cluster = Cluster::start().await;
    let groups = cluster.get("/apis").await.expect(200);
    assert_eq!(groups["kind"], "APIGroupList");
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    )];
    let answer = cluster.send(Method::GET, "/api", &accept, "").await;
    assert!(
        answer.headers["content-type"]
            .to_str()
            .unwrap()
            .contains("as=APIGroupDiscoveryList")
    );
    assert_eq!(answer.expect(200)["items"][0]["versions"][0]["version"], "v1");
}

#[tokio::test]
async fn openapi_comes_in_the_form_that_is_asked_for() {
    let cluster = Cluster::start().await;
    let mime = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let response = cluster
        .open(Method::GET, "/openapi/v2", &[("accept", mime)], "")
        .await;
    assert_eq!(response.headers()["content-type"], mime.replace('@', "."));
    let answer = cluster.get("/openapi/v2").await;
    let tag = answer.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(answer.expect(200)["swagger"], "2.0");
    let again = cluster
        .send(Method::GET, "/openapi/v2", &[("if-none-match", tag.as_str())], "")
        .await;
    assert_eq!(again.code, 304);
    let index = cluster.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    assert_eq!(cluster.get(url).await.expect(200)["openapi"], "3.0.0");
}

#[tokio::test]
async fn one_may_ask_what_one_may_do() {
    let cluster = Cluster::start().await;
    let question = json!({"spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}}});
    let uri = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = cluster.create(uri, question).await;
    assert_eq!(answer["status"]["allowed"], true);
}
