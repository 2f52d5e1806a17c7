//! What namespaces begin with and how they end.

use flotilla_resources::{DeleteOptions, Part};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::harness::{Cluster, Setting, eventually};

fn named(namespace: Option<&str>, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        ..ObjectMeta::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_has_an_account_and_the_authority() {
    let setting = Setting {
        root_ca: "certificate".to_owned(),
        ..Setting::default()
    };
    let cluster = Cluster::start_with(0, setting).await;
    let furnished = |name: &str| {
        let (accounts, _) = cluster.resources.list_typed::<ServiceAccount>(Some(name));
        let (maps, _) = cluster.resources.list_typed::<ConfigMap>(Some(name));
        accounts.len() == 1 && maps.len() == 1
    };
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        eventually(name, || furnished(name)).await;
    }
    let options = DeleteOptions::default();
    cluster
        .resources
        .delete_typed::<ConfigMap>("default", "kube-root-ca.crt", &options)
        .await
        .unwrap();
    eventually("the authority is published again", || furnished("default")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_when_all_that_was_in_it_is_gone() {
    let cluster = Cluster::start(0).await;
    cluster
        .resources
        .create_typed(Namespace {
            metadata: named(None, "team"),
            ..Namespace::default()
        })
        .await
        .unwrap();
    let mut held = ConfigMap {
        metadata: named(Some("team"), "held"),
        ..ConfigMap::default()
    };
    held.metadata.finalizers = Some(vec!["test/hold".to_owned()]);
    cluster.resources.create_typed(held).await.unwrap();
    for number in 0..20 {
        let map = ConfigMap {
            metadata: named(Some("team"), &format!("free-{number}")),
            ..ConfigMap::default()
        };
        cluster.resources.create_typed(map).await.unwrap();
    }
    cluster
        .resources
        .delete_typed::<Namespace>("", "team", &DeleteOptions::default())
        .await
        .unwrap();
    eventually("it says what is left", || {
        let Some(team) = cluster.namespaces.get("", "team") else {
            return false;
        };
        let conditions = team
            .status
            .clone()
            .unwrap_or_default()
            .conditions
            .unwrap_or_default();
        conditions.iter().any(|condition| {
            condition.message.as_deref()
                == Some("Some resources are remaining: configmaps. has 1 resource instances")
        })
    })
    .await;
    let release = |map: &mut ConfigMap| {
        map.metadata.finalizers = None;
        true
    };
    cluster
        .resources
        .modify("team", "held", Part::Whole, release)
        .await
        .unwrap();
    eventually("the namespace is gone", || {
        cluster.namespaces.get("", "team").is_none()
    })
    .await;
    let (left, _) = cluster.resources.list_typed::<ConfigMap>(Some("team"));
    assert!(left.is_empty());
    cluster.stop().await;
}
