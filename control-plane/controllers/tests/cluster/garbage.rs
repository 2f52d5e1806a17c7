//! What becomes of dependents when their owner is deleted.

use flotilla_resources::{DeleteOptions, Propagation};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::harness::{Cluster, eventually};

async fn config_map(
    cluster: &Cluster,
    name: &str,
    owner: Option<&ConfigMap>,
    finalizers: Option<Vec<String>>,
) -> ConfigMap {
    let owner = owner.map(|owner| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: owner.metadata.name.clone().unwrap(),
        uid: owner.metadata.uid.clone().unwrap(),
        block_owner_deletion: Some(true),
        controller: None,
    });
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("default".to_owned()),
        owner_references: owner.map(|owner| vec![owner]),
        finalizers,
        ..ObjectMeta::default()
    };
    cluster
        .resources
        .create_typed(ConfigMap {
            metadata,
            ..ConfigMap::default()
        })
        .await
        .unwrap()
}

async fn delete(cluster: &Cluster, name: &str, propagation: Propagation) {
    let options = DeleteOptions {
        propagation: Some(propagation),
        ..DeleteOptions::default()
    };
    cluster
        .resources
        .delete_typed::<ConfigMap>("default", name, &options)
        .await
        .unwrap();
}

fn find(cluster: &Cluster, name: &str) -> Option<std::sync::Arc<ConfigMap>> {
    let (maps, _) = cluster.resources.list_typed::<ConfigMap>(Some("default"));
    maps.into_iter()
        .find(|map| map.metadata.name.as_deref() == Some(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_background_dependents_follow_their_owner() {
    let cluster = Cluster::start(0).await;
    let owner = config_map(&cluster, "owner", None, None).await;
    let child = config_map(&cluster, "child", Some(&owner), None).await;
    config_map(&cluster, "grandchild", Some(&child), None).await;
    config_map(&cluster, "stranger", None, None).await;
    delete(&cluster, "owner", Propagation::Background).await;
    eventually("the family is gone", || {
        ["owner", "child", "grandchild"]
            .iter()
            .all(|name| find(&cluster, name).is_none())
    })
    .await;
    assert!(find(&cluster, "stranger").is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_foreground_the_owner_waits_for_its_dependents() {
    let cluster = Cluster::start(0).await;
    let owner = config_map(&cluster, "owner", None, None).await;
    config_map(
        &cluster,
        "child",
        Some(&owner),
        Some(vec!["test/hold".to_owned()]),
    )
    .await;
    delete(&cluster, "owner", Propagation::Foreground).await;
    eventually("the child is being deleted", || {
        find(&cluster, "child").is_some_and(|child| child.metadata.deletion_timestamp.is_some())
    })
    .await;
    assert!(find(&cluster, "owner").is_some_and(|owner| owner.metadata.deletion_timestamp.is_some()));
    let release = |child: &mut ConfigMap| {
        child.metadata.finalizers = None;
        true
    };
    cluster
        .resources
        .modify("default", "child", flotilla_resources::Part::Whole, release)
        .await
        .unwrap();
    eventually("both are gone", || {
        find(&cluster, "child").is_none() && find(&cluster, "owner").is_none()
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_stay_and_forget_their_owner() {
    let cluster = Cluster::start(0).await;
    let owner = config_map(&cluster, "owner", None, None).await;
    config_map(&cluster, "child", Some(&owner), None).await;
    delete(&cluster, "owner", Propagation::Orphan).await;
    eventually("the owner is gone", || find(&cluster, "owner").is_none()).await;
    let child = find(&cluster, "child").unwrap();
    assert_eq!(child.metadata.owner_references, None);
    assert_eq!(child.metadata.deletion_timestamp, None);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_owner_never_was_is_deleted_and_one_with_another_owner_is_not() {
    let cluster = Cluster::start(0).await;
    let real = config_map(&cluster, "real", None, None).await;
    let mut ghost = real.clone();
    ghost.metadata.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    config_map(&cluster, "lost", Some(&ghost), None).await;
    eventually("it is gone", || find(&cluster, "lost").is_none()).await;
    let mut half = config_map(&cluster, "half", Some(&real), None).await;
    let owners = half.metadata.owner_references.as_mut().unwrap();
    owners.push(OwnerReference {
        uid: ghost.metadata.uid.clone().unwrap(),
        name: "ghost".to_owned(),
        ..owners[0].clone()
    });
    cluster.resources.update_typed(half).await.unwrap();
    eventually("the absent owner is dropped", || {
        find(&cluster, "half")
            .is_some_and(|half| half.metadata.owner_references.as_ref().map(Vec::len) == Some(1))
    })
    .await;
    cluster.stop().await;
}
