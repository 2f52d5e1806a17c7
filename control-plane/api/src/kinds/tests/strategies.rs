//! What updates keep, when the generation counts on, scales, deletion, field selectors, views.

use expect_test::expect;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::json;

use super::{create, read, yaml};
use crate::object::Object;
use crate::registry::registry;
use crate::selector::FieldSelector;

fn deployment(replicas: i32, more: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: default, labels: {{x: new}}}}, spec: {{replicas: {replicas}, selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: a, image: 'a:1'}}]}}}}}}{more}}}"
    )
}

fn generation(object: &dyn Object) -> Option<i64> {
    object.meta().generation
}

fn as_deployment(object: &dyn Object) -> &Deployment {
    object.as_any().downcast_ref().unwrap()
}

#[test]
fn an_update_keeps_the_status_and_counts_changes_of_the_spec() {
    let (kind, mut old) = create(&deployment(1, "")).unwrap();
    old.meta_mut().uid = Some("1".into());
    old.as_any_mut()
        .downcast_mut::<Deployment>()
        .unwrap()
        .status
        .get_or_insert_default()
        .replicas = Some(1);
    for (replicas, expected) in [(1, 1), (2, 2)] {
        let (_, mut new) = read(&deployment(replicas, ", status: {replicas: 9}"));
        kind.set_defaults(&mut *new);
        kind.prepare_update(&mut *new, &*old);
        assert_eq!(generation(&*new), Some(expected));
        assert_eq!(as_deployment(&*new).status.as_ref().unwrap().replicas, Some(1));
        assert_eq!(new.meta().uid.as_deref(), Some("1"));
    }
}

#[test]
fn a_status_update_keeps_the_spec_and_the_labels() {
    let (kind, mut old) = create(&deployment(1, "")).unwrap();
    old.meta_mut().labels = None;
    let (_, mut new) = read(&deployment(5, ", status: {replicas: 9}"));
    new.meta_mut().annotations = Some([("a".to_owned(), "b".to_owned())].into());
    kind.prepare_status_update(&mut *new, &*old);
    let updated = as_deployment(&*new);
    assert_eq!(updated.spec.as_ref().unwrap().replicas, Some(1));
    assert_eq!(updated.status.as_ref().unwrap().replicas, Some(9));
    assert_eq!(updated.metadata.labels, None);
    assert!(updated.metadata.annotations.is_some());
    assert_eq!(generation(&*new), Some(1));
}

#[test]
fn the_scale_shows_and_sets_replicas() {
    let (kind, mut object) = read(&deployment(3, ", status: {replicas: 2}"));
    let scale = kind.scale(&*object).unwrap();
    assert_eq!(
        serde_json::to_value(&scale).unwrap(),
        json!({
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 3},
            "status": {"replicas": 2, "selector": "app=web"},
        })
    );
    kind.set_scale(&mut *object, 7);
    assert_eq!(as_deployment(&*object).spec.as_ref().unwrap().replicas, Some(7));
}

#[test]
fn only_pods_on_nodes_have_a_grace_period() {
    for (spec, status, requested, seconds) in [
        ("nodeName: n, terminationGracePeriodSeconds: 20", "", None, 20),
        ("nodeName: n, terminationGracePeriodSeconds: 20", "", Some(5), 5),
        ("nodeName: n, terminationGracePeriodSeconds: 20", "", Some(0), 0),
        ("nodeName: n, terminationGracePeriodSeconds: 20", "", Some(-3), 1),
        (
            "nodeName: n, terminationGracePeriodSeconds: 20",
            "phase: Failed",
            None,
            0,
        ),
        ("terminationGracePeriodSeconds: 20", "", None, 0),
    ] {
        let (kind, pod) = read(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{{spec}}}, status: {{{status}}}}}"
        ));
        assert_eq!(
            kind.graceful_deletion(&*pod, requested),
            seconds,
            "{spec} {status} {requested:?}"
        );
    }
    let (kind, map) = read("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}");
    assert_eq!(kind.graceful_deletion(&*map, Some(30)), 0);
}

#[test]
fn a_namespace_is_held_by_its_own_finalizers_until_it_is_being_deleted() {
    let (kind, old) = create("{apiVersion: v1, kind: Namespace, metadata: {name: a}}").unwrap();
    assert!(kind.has_finalizers(&*old));
    let (_, mut bare) = read("{apiVersion: v1, kind: Namespace, metadata: {name: a}}");
    kind.prepare_update(&mut *bare, &*old);
    assert!(kind.has_finalizers(&*bare));

    let mut ending = old.clone();
    kind.begin_deletion(&mut *ending);
    ending.meta_mut().deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(super::now()));
    let (_, mut bare) = read("{apiVersion: v1, kind: Namespace, metadata: {name: a}}");
    kind.prepare_update(&mut *bare, &*ending);
    assert!(!kind.has_finalizers(&*bare));
    let bare = bare.as_any().downcast_ref::<Namespace>().unwrap();
    assert_eq!(
        bare.status.as_ref().unwrap().phase.as_deref(),
        Some("Terminating")
    );
}

#[test]
fn pods_get_default_tolerations_unless_they_have_their_own() {
    let manifest = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [], tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute}]}}";
    let (_, object) = read(manifest);
    let mut pod = *object.into_any().downcast::<Pod>().unwrap();
    crate::add_default_tolerations(&mut pod, 30);
    expect![[r#"
        apiVersion: v1
        kind: Pod
        metadata:
          name: a
        spec:
          containers: []
          tolerations:
          - effect: NoExecute
            key: node.kubernetes.io/not-ready
            operator: Exists
          - effect: NoExecute
            key: node.kubernetes.io/unreachable
            operator: Exists
            tolerationSeconds: 30
    "#]]
    .assert_eq(&yaml(&pod));
}

#[test]
fn field_selectors_ask_for_what_the_kind_offers() {
    let (kind, pod) = read(
        "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: default}, spec: {nodeName: n1}, status: {phase: Running}}",
    );
    for (selector, picked) in [
        ("", true),
        ("metadata.name=web", true),
        ("metadata.name==web,spec.nodeName=n1", true),
        ("status.phase!=Running", false),
        ("status.phase!=Failed,metadata.namespace=default", true),
        ("spec.nodeName=", false),
    ] {
        assert_eq!(
            FieldSelector::parse(kind, selector).unwrap().matches(kind, &*pod),
            picked,
            "{selector}"
        );
    }
    let refused = |selector| FieldSelector::parse(kind, selector).unwrap_err().message;
    assert_eq!(refused("spec.foo=a"), "field label not supported: spec.foo");
    assert_eq!(
        refused("name"),
        "invalid field selector \"name\"; can't understand 'name'"
    );
}

#[test]
fn events_of_both_groups_are_the_same_objects() {
    let (view, event) = read(
        "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: e}, type: Normal, note: Hello, reason: Why, action: Do, regarding: {kind: Pod, name: web}, reportingController: me, reportingInstance: here, eventTime: '2026-11-21T08:58:00.123456Z', series: {count: 2, lastObservedTime: '2026-11-21T08:59:00.000000Z'}}",
    );
    let shown = yaml(&*event);
    let stored = view.to_storage(event);
    let storage = view.storage().unwrap();
    assert!(stored.as_any().is::<k8s_openapi::api::core::v1::Event>());
    expect![[r#"
        action: Do
        apiVersion: v1
        eventTime: 2026-11-21T08:58:00.123456Z
        involvedObject:
          kind: Pod
          name: web
        kind: Event
        message: Hello
        metadata:
          name: e
        reason: Why
        reportingComponent: me
        reportingInstance: here
        series:
          count: 2
          lastObservedTime: 2026-11-21T08:59:00.000000Z
        type: Normal
    "#]]
    .assert_eq(&yaml(&*stored));
    let stored = storage.decode_stored(&stored.encode()).unwrap();
    assert_eq!(yaml(&*view.from_storage(stored)), shown);
}

#[test]
fn every_kind_is_found_by_its_names() {
    for kind in registry().all() {
        assert_eq!(
            registry().by_resource(kind.group, kind.version, kind.resource),
            Some(kind)
        );
        assert_eq!(
            registry().by_kind(kind.group, kind.version, kind.kind),
            Some(kind)
        );
        assert_eq!(
            kind.columns
                .iter()
                .filter(|column| column.format == "name")
                .count(),
            1,
            "{kind:?}"
        );
    }
    let names = registry().all().map(|kind| {
        let subresources: Vec<&str> = kind.subresources.iter().map(|one| one.name).collect();
        format!(
            "{} ({}) {}\n",
            kind.qualified_resource(),
            kind.short_names.join(","),
            subresources.join(" ")
        )
    });
    expect![[r#"
        configmaps (cm) 
        endpoints (ep) 
        events (ev) 
        namespaces (ns) finalize status
        nodes (no) proxy status
        persistentvolumes (pv) status
        persistentvolumeclaims (pvc) status
        pods (po) attach binding ephemeralcontainers eviction exec log portforward proxy resize status
        replicationcontrollers (rc) scale status
        secrets () 
        services (svc) status
        serviceaccounts (sa) token
        controllerrevisions.apps () 
        deployments.apps (deploy) scale status
        replicasets.apps (rs) scale status
        statefulsets.apps (sts) scale status
        events.events.k8s.io (ev) 
        leases.coordination.k8s.io () 
        endpointslices.discovery.k8s.io () 
        ingresses.networking.k8s.io (ing) status
        ingressclasses.networking.k8s.io () 
        networkpolicies.networking.k8s.io (netpol) 
        priorityclasses.scheduling.k8s.io (pc) 
        members.flotilla.dev () 
        nodes.metrics.k8s.io () 
        pods.metrics.k8s.io () 
        storageclasses.storage.k8s.io (sc) 
    "#]]
    .assert_eq(&names.collect::<String>());
    assert_eq!(registry().of::<Pod>().api_version(), "v1");
}
