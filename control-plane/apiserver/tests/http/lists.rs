//! Lists: selectors, pages, tables, resource versions.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, deployment};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

async fn five() -> Cluster {
    let cluster = Cluster::start().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "x")] {
        cluster.config_map(name, json!({"tier": tier})).await;
    }
    cluster
}

#[tokio::test]
async fn selectors_pick_objects() {
    let cluster = five().await;
    let list = cluster.get(MAPS).await.expect(200);
    assert_eq!(names(&list), ["a", "b", "c", "d", "e"]);
    assert_eq!(list["kind"], "ConfigMapList");
    let list = cluster
        .get(&format!("{MAPS}?labelSelector=tier+in+(y),tier!%3Dz"))
        .await
        .expect(200);
    assert_eq!(names(&list), ["b", "d"]);
    let list = cluster
        .get(&format!("{MAPS}?fieldSelector=metadata.name%3Dc"))
        .await
        .expect(200);
    assert_eq!(names(&list), ["c"]);
    let list = cluster
        .get("/api/v1/configmaps?fieldSelector=metadata.name!%3Dc,metadata.namespace%3Ddefault")
        .await;
    assert_eq!(names(&list.expect(200)), ["a", "b", "d", "e"]);
    let message = cluster
        .get(&format!("{MAPS}?fieldSelector=spec.x%3Dc"))
        .await
        .refused(400);
    assert!(message.contains("field label not supported"), "{message}");
    cluster
        .get(&format!("{MAPS}?labelSelector=a%3D%3D%3Db"))
        .await
        .refused(400);
}

#[tokio::test]
async fn pages_show_one_moment() {
    let cluster = five().await;
    let first = cluster.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    cluster
        .send(Method::DELETE, &format!("{MAPS}/c"), &[], "")
        .await
        .expect(200);
    cluster.config_map("bb", json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = cluster
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = cluster
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&last), ["e"]);
    assert_eq!(last["metadata"].get("continue"), None);
}

#[tokio::test]
async fn a_lost_moment_can_be_continued_inconsistently() {
    let cluster = five().await;
    // {"v":"meta.k8s.io/v1","rv":1,"namespace":"default","name":"c"}
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwibmFtZXNwYWNlIjoiZGVmYXVsdCIsIm5hbWUiOiJjIn0";
    let expired = cluster
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await
        .expect(410);
    assert_eq!(expired["reason"], "Expired");
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let rest = cluster
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await
        .expect(200);
    assert_eq!(names(&rest), ["d", "e"]);
    cluster
        .get(&format!("{MAPS}?continue=nonsense"))
        .await
        .refused(400);
}

#[tokio::test]
async fn versions_bind_a_list_to_a_moment() {
    let cluster = five().await;
    let list = cluster
        .get(&format!("{MAPS}?resourceVersion=0"))
        .await
        .expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    cluster
        .get(&format!(
            "{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"
        ))
        .await
        .expect(200);
    cluster.config_map("f", json!({})).await;
    cluster
        .get(&format!(
            "{MAPS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan"
        ))
        .await
        .expect(200);
    cluster
        .get(&format!(
            "{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"
        ))
        .await
        .refused(410);
    let message = cluster
        .get(&format!("{MAPS}?resourceVersion=99999"))
        .await
        .refused(504);
    assert!(message.contains("Too large resource version"), "{message}");
}

#[tokio::test]
async fn tables_have_columns_and_metadata() {
    let cluster = Cluster::start().await;
    let uri = "/apis/apps/v1/namespaces/default/deployments";
    cluster.create(uri, deployment("web")).await;
    for version in ["v1", "v1beta1"] {
        let accept = format!("application/json;as=Table;v={version};g=meta.k8s.io,application/json");
        let table = cluster
            .send(Method::GET, uri, &[("accept", accept.as_str())], "")
            .await
            .expect(200);
        assert_eq!(
            (&table["kind"], &table["apiVersion"]),
            (&json!("Table"), &json!(format!("meta.k8s.io/{version}")))
        );
        let columns: Vec<&str> = table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(columns[..5], ["Name", "Ready", "Up-to-date", "Available", "Age"]);
        assert_eq!(table["rows"][0]["cells"][0], "web");
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns.len());
        assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "web");
        assert_eq!(table["rows"][0]["object"].get("spec"), None);
    }
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let one = cluster
        .send(
            Method::GET,
            &format!("{uri}/web?includeObject=Object"),
            &accept,
            "",
        )
        .await
        .expect(200);
    assert_eq!(one["rows"][0]["object"]["spec"]["replicas"], 2);
}

#[tokio::test]
async fn metadata_alone_can_be_had() {
    let cluster = five().await;
    let accept = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let list = cluster.send(Method::GET, MAPS, &accept, "").await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert_eq!(list["items"][0].get("data"), None);
}
