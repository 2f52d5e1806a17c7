//! The write path on a real replica of its own.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{sync::Arc, time::Duration};

use flotilla_api::{FieldValidation, Reason, Status, patch::PatchKind, registry};
use flotilla_raft::{Limits, Options, Platform, Replica, Timing};
use flotilla_resources::{
    Cache, DeleteOptions, Deleted, EventRecord, EventType, EventWriter, Part, Propagation, Resources,
    WriteOptions,
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Event, Namespace, Node, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const LIMIT: Duration = Duration::from_secs(10);

struct Store {
    resources: Resources,
    events: Option<EventWriter>,
    _folder: tempfile::TempDir,
}

/// A store with the namespace `default`.
async fn store() -> Store {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        id: 1,
        name: "one".into(),
        address: "127.0.0.1:1".into(),
        data_dir: folder.path().to_owned(),
        platform: Platform::real(Arc::new(|_| {
            tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
        })),
        timing: Timing::default(),
        limits: Limits::default(),
    };
    let replica = Replica::open(options).await.unwrap();
    replica.bootstrap().await.unwrap();
    replica.leadership().wait_for(|now| now.is_self).await.unwrap();
    let (resources, events) = Resources::new(replica, flotilla_resources::Options::default());
    resources
        .create_typed(Namespace {
            metadata: named("default"),
            ..Namespace::default()
        })
        .await
        .unwrap();
    Store {
        resources,
        events: Some(events),
        _folder: folder,
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        ..ObjectMeta::default()
    }
}

fn config(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "data": {"a": value}}))
        .unwrap()
}

fn said<T>(result: Result<T, Status>) -> String {
    match result {
        Ok(_) => "done".into(),
        Err(status) => format!("{:?}: {}", status.reason, status.message),
    }
}

fn value(config: &ConfigMap) -> &str {
    config
        .data
        .as_ref()
        .and_then(|data| data.get("a"))
        .map_or("", String::as_str)
}

#[tokio::test]
async fn a_name_can_be_taken_once() {
    let store = store().await;
    let created = store.resources.create_typed(config("c", "1")).await.unwrap();
    assert!(created.metadata.uid.is_some() && created.metadata.creation_timestamp.is_some());
    let again = store.resources.create_typed(config("c", "2")).await;
    assert_eq!(said(again), "AlreadyExists: configmaps \"c\" already exists");
}

#[tokio::test]
async fn names_are_generated_and_differ() {
    let store = store().await;
    let template: ConfigMap =
        serde_json::from_value(json!({"metadata": {"generateName": "c-", "namespace": "default"}})).unwrap();
    let one = store.resources.create_typed(template.clone()).await.unwrap();
    let two = store.resources.create_typed(template).await.unwrap();
    assert_ne!(one.metadata.name, two.metadata.name);
    assert!(one.metadata.name.unwrap().starts_with("c-"));
}

#[tokio::test]
async fn nothing_is_created_where_there_is_no_namespace_or_one_that_ends() {
    let store = store().await;
    let mut lost = config("c", "1");
    lost.metadata.namespace = Some("nowhere".into());
    assert_eq!(
        said(store.resources.create_typed(lost).await),
        "NotFound: namespaces \"nowhere\" not found"
    );
    let ending = Namespace {
        metadata: ObjectMeta {
            name: Some("ending".into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    store.resources.create_typed(ending).await.unwrap();
    store
        .resources
        .delete_typed::<Namespace>("", "ending", &DeleteOptions::default())
        .await
        .unwrap();
    let mut late = config("c", "1");
    late.metadata.namespace = Some("ending".into());
    let refused = said(store.resources.create_typed(late).await);
    assert!(refused.contains("because it is being terminated"), "{refused}");
}

#[tokio::test]
async fn the_namespaces_that_every_cluster_has_cannot_be_deleted() {
    let store = store().await;
    let options = DeleteOptions::default();
    let refused = store
        .resources
        .delete_typed::<Namespace>("", "default", &options)
        .await;
    assert_eq!(
        said(refused),
        "Forbidden: namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}

#[tokio::test]
async fn a_stale_version_is_refused_and_none_overwrites() {
    let store = store().await;
    let first = store.resources.create_typed(config("c", "1")).await.unwrap();
    let mut second = first.clone();
    second.data = config("c", "2").data;
    let second = store.resources.update_typed(second).await.unwrap();
    let mut late = first;
    late.data = config("c", "3").data;
    let refused = said(store.resources.update_typed(late.clone()).await);
    assert!(
        refused.starts_with("Conflict:") && refused.contains("object has been modified"),
        "{refused}"
    );
    late.metadata.resource_version = None;
    assert_eq!(value(&store.resources.update_typed(late).await.unwrap()), "3");
    assert_ne!(second.metadata.resource_version, None);
}

#[tokio::test]
async fn writing_what_is_there_changes_nothing() {
    let store = store().await;
    let first = store.resources.create_typed(config("c", "1")).await.unwrap();
    let again = store.resources.update_typed(first.clone()).await.unwrap();
    assert_eq!(first.metadata.resource_version, again.metadata.resource_version);
}

#[tokio::test]
async fn patches_and_dry_runs() {
    let store = store().await;
    store.resources.create_typed(config("c", "1")).await.unwrap();
    let kind = registry().of::<ConfigMap>();
    let patch = json!({"data": {"a": "2"}});
    let dry = WriteOptions {
        dry_run: true,
        field_validation: FieldValidation::Ignore,
    };
    for (options, expected) in [(dry, "1"), (WriteOptions::default(), "2")] {
        let patched = store.resources.patch(
            kind,
            "default",
            "c",
            PatchKind::Merge,
            patch.clone(),
            Part::Whole,
            &options,
        );
        let answered: ConfigMap = serde_json::from_slice(&patched.await.unwrap().object.json).unwrap();
        assert_eq!(value(&answered), "2");
        assert_eq!(
            value(
                &store
                    .resources
                    .get_typed::<ConfigMap>("default", "c")
                    .await
                    .unwrap()
            ),
            expected
        );
    }
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let store = store().await;
    store.resources.create_typed(config("c", "1")).await.unwrap();
    let options = DeleteOptions {
        propagation: Some(Propagation::Foreground),
        ..DeleteOptions::default()
    };
    let deleted = store
        .resources
        .delete_typed::<ConfigMap>("default", "c", &options)
        .await
        .unwrap();
    assert!(matches!(deleted, Deleted::Pending(_)));
    let release = |config: &mut ConfigMap| config.metadata.finalizers.take().is_some();
    store
        .resources
        .modify::<ConfigMap>("default", "c", Part::Whole, release)
        .await
        .unwrap();
    let gone = store.resources.get_typed::<ConfigMap>("default", "c").await;
    assert_eq!(gone.unwrap_err().reason, Reason::NotFound);
}

#[tokio::test]
async fn a_deletion_may_name_the_object_it_means() {
    let store = store().await;
    store.resources.create_typed(config("c", "1")).await.unwrap();
    let other = DeleteOptions {
        uid: Some("another".into()),
        ..DeleteOptions::default()
    };
    let refused = said(
        store
            .resources
            .delete_typed::<ConfigMap>("default", "c", &other)
            .await,
    );
    assert!(refused.starts_with("Conflict:"), "{refused}");
}

#[tokio::test]
async fn a_replaced_leader_writes_nothing() {
    let store = store().await;
    let refused = said(store.resources.fenced(0).create_typed(config("c", "1")).await);
    assert!(refused.starts_with("ServiceUnavailable:"), "{refused}");
    assert_eq!(
        store
            .resources
            .get_typed::<ConfigMap>("default", "c")
            .await
            .unwrap_err()
            .reason,
        Reason::NotFound
    );
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap()
}

#[tokio::test]
async fn one_pod_that_cannot_be_bound_keeps_no_other_back() {
    let store = store().await;
    for name in ["a", "b"] {
        store.resources.create_typed(pod(name)).await.unwrap();
    }
    store
        .resources
        .create_typed(Node {
            metadata: named("n"),
            ..Node::default()
        })
        .await
        .unwrap();
    let to = |name: &str, node: &str| flotilla_resources::Binding {
        namespace: "default".into(),
        name: name.into(),
        uid: String::new(),
        node: node.into(),
    };
    let binding = |name: &str| to(name, "n");
    let nowhere = said(store.resources.bind(vec![to("a", "gone")]).await.remove(0));
    assert_eq!(nowhere, "NotFound: nodes \"gone\" not found");
    let answers = store
        .resources
        .bind(vec![binding("a"), binding("gone"), binding("b")])
        .await;
    assert_eq!(
        answers.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    let again = said(store.resources.bind(vec![binding("a")]).await.remove(0));
    assert!(again.contains("already assigned to node \"n\""), "{again}");
    let bound = store.resources.get_typed::<Pod>("default", "b").await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.as_deref(), Some("n"));
}

#[tokio::test]
async fn a_cache_sees_what_was_there_and_what_comes() {
    let store = store().await;
    store.resources.create_typed(config("before", "1")).await.unwrap();
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let cache = Cache::<ConfigMap>::start(store.resources.replica(), &tracker, &shutdown);
    cache.synced().await;
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    cache.subscribe(move |event| drop(sender.send(event.object().metadata.name.clone().unwrap())));
    store.resources.create_typed(config("after", "1")).await.unwrap();
    for expected in ["before", "after"] {
        let name = tokio::time::timeout(LIMIT, seen.recv()).await.unwrap().unwrap();
        assert_eq!(name, expected);
    }
    assert!(cache.get("default", "after").is_some());
    shutdown.cancel();
}

#[tokio::test]
async fn repeated_events_are_counted() {
    let mut store = store().await;
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let cache = Cache::<Event>::start(store.resources.replica(), &tracker, &shutdown);
    cache.synced().await;
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    cache.subscribe(move |event| {
        // The receiver ends with the test.
        let _ = sender.send(event.object().count);
    });
    tracker.spawn(store.events.take().unwrap().run(shutdown.clone()));
    let record = EventRecord {
        regarding: ObjectReference {
            name: Some("p".into()),
            namespace: Some("default".into()),
            ..Default::default()
        },
        type_: EventType::Normal,
        reason: "Started".into(),
        message: "Started container c".into(),
        component: "kubelet".into(),
        host: None,
    };
    for expected in 1..=3 {
        store.resources.record_event(record.clone());
        let count = tokio::time::timeout(LIMIT, seen.recv()).await.unwrap().unwrap();
        assert_eq!(count, Some(expected));
    }
    assert_eq!(cache.list(None).len(), 1);
    shutdown.cancel();
}
