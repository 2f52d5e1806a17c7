//! `members.flotilla.dev`: the servers as objects, of a cluster with one.

use flotilla_apiserver::User;
use http::Method;
use serde_json::json;

use crate::cluster::{Cluster, read};

const MEMBERS: &str = "/apis/flotilla.dev/v1alpha1/members";

#[tokio::test]
async fn servers_are_listed_and_read_by_name() {
    let cluster = Cluster::start().await;
    let list = cluster.get(MEMBERS).await.expect(200);
    assert_eq!(list["kind"], "MemberList");
    let member = &list["items"][0];
    assert_eq!(member["metadata"], json!({"name": "server-1", "uid": "1"}));
    assert_eq!(member["status"]["role"], "Leader");
    assert_eq!(member["status"]["behind"], 0);
    let one = cluster.get(&format!("{MEMBERS}/server-1")).await.expect(200);
    assert_eq!(one["status"]["address"], "127.0.0.1:1");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = cluster.send(Method::GET, MEMBERS, &accept, "").await.expect(200);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells[..4],
        [
            json!("server-1"),
            json!("1"),
            json!("Leader"),
            json!("127.0.0.1:1")
        ]
    );
    cluster.get(&format!("{MEMBERS}/other")).await.refused(404);
}

#[tokio::test]
async fn a_server_is_not_taken_out_without_thought() {
    let cluster = Cluster::start().await;
    let only = format!("{MEMBERS}/server-1");
    let force = r#"{"gracePeriodSeconds": 0}"#;
    for body in ["", force] {
        let message = cluster.send(Method::DELETE, &only, &[], body).await.refused(409);
        assert!(message.starts_with("server-1 is the only voter"), "{message}");
    }
    let other = r#"{"preconditions": {"uid": "7"}}"#;
    let message = cluster.send(Method::DELETE, &only, &[], other).await.refused(409);
    assert!(message.contains("UID in precondition: 7"), "{message}");
    let unknown = format!("{MEMBERS}/other");
    cluster.send(Method::DELETE, &unknown, &[], "").await.refused(404);
    let dry = format!("{only}?dryRun=All");
    cluster.send(Method::DELETE, &dry, &[], "").await.refused(400);
}

#[tokio::test]
async fn only_administrators_see_servers_and_nobody_makes_them() {
    let cluster = Cluster::start().await;
    let node = User {
        name: "system:node:a".into(),
        groups: vec!["system:nodes".into()],
    };
    let answer = cluster.open_as(Some(node), Method::GET, MEMBERS, &[], "").await;
    let message = read(answer).await.refused(403);
    assert!(message.contains("cannot list resource \"members\""), "{message}");
    let made = cluster.send(Method::POST, MEMBERS, &[], "{}").await;
    assert_eq!(made.code, 405);
}

#[tokio::test]
async fn the_file_of_a_snapshot_is_for_administrators_only() {
    let cluster = Cluster::start().await;
    let path = "/flotilla.dev/snapshot";
    // What breaks off is cut off: its reader looks for the end.
    let answer = cluster.get(path).await;
    assert_eq!((answer.code, answer.text.as_str()), (200, "FLTBAK"));
    let node = User {
        name: "system:node:a".into(),
        groups: vec!["system:nodes".into()],
    };
    let refused = cluster.open_as(Some(node), Method::GET, path, &[], "").await;
    read(refused).await.refused(403);
    let posted = cluster.send(Method::POST, path, &[], "").await;
    assert_eq!(posted.code, 405);
}
