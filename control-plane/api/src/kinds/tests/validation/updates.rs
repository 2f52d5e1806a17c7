//! Updates that are refused.

use expect_test::{Expect, expect};

use super::super::{create, read};
use super::message;

/// Creates the first manifest and updates it with the second.
fn update(kind: &str, old: &str, new: &str, expected: &Expect) {
    let manifest = |body: &str| format!("{{{kind}, metadata: {{name: web, namespace: default}}, {body}}}");
    let (kind, mut old) = create(&manifest(old)).unwrap();
    old.meta_mut().uid = Some("1".into());
    let (_, mut new) = read(&manifest(new));
    kind.set_defaults(&mut *new);
    kind.prepare_update(&mut *new, &*old);
    let result = kind.validate_update(&*new, &*old);
    expected.assert_eq(&result.map_or_else(|error| message(&error), |()| "valid".into()));
}

#[test]
fn what_may_not_change() {
    let pod = "apiVersion: v1, kind: Pod";
    let one = "spec: {containers: [{name: a, image: 'a:1'}]}";
    update(
        pod,
        one,
        "spec: {containers: [{name: a, image: 'a:2'}], activeDeadlineSeconds: 5}",
        &expect!["valid"],
    );
    update(
        pod,
        one,
        "spec: {containers: [{name: a, image: 'a:1', command: [b]}]}",
        &expect![[r#"
        Pod "web"
        spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
    "#]],
    );
    update(
        pod,
        one,
        "spec: {containers: [{name: a, image: 'a:1'}, {name: b, image: 'b:1'}]}",
        &expect![[r#"
        Pod "web"
        spec.containers: Forbidden: pod updates may not add or remove containers
    "#]],
    );
    let tolerant = "spec: {containers: [{name: a, image: 'a:1'}], tolerations: [{operator: Exists}]}";
    update(pod, one, tolerant, &expect!["valid"]);
    update(
        pod,
        tolerant,
        one,
        &expect![[r#"
        Pod "web"
        spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds
    "#]],
    );
}

#[test]
fn selectors_addresses_and_immutable_data_stay() {
    let deployment = "apiVersion: apps/v1, kind: Deployment";
    let of = |app: &str| {
        format!(
            "spec: {{selector: {{matchLabels: {{app: {app}}}}}, template: {{metadata: {{labels: {{app: {app}}}}}, spec: {{containers: [{{name: a, image: 'a:1'}}]}}}}}}"
        )
    };
    update(
        deployment,
        &of("a"),
        &of("b"),
        &expect![[r#"
        Deployment.apps "web"
        spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable
    "#]],
    );

    let map = "apiVersion: v1, kind: ConfigMap";
    update(
        map,
        "data: {a: b}, immutable: true",
        "data: {a: c}",
        &expect![[r#"
        ConfigMap "web"
        immutable: Forbidden: field is immutable when `immutable` is set
        data: Forbidden: field is immutable when `immutable` is set
    "#]],
    );
    update(
        map,
        "data: {a: b}",
        "data: {a: c}, immutable: true",
        &expect!["valid"],
    );
    update(
        "apiVersion: v1, kind: Secret",
        "type: a",
        "type: b",
        &expect![[r#"
        Secret "web"
        type: Invalid value: "b": field is immutable
    "#]],
    );
    update(
        "apiVersion: v1, kind: Service",
        "spec: {clusterIP: 10.43.0.5, ports: [{port: 80}]}",
        "spec: {clusterIP: 10.43.0.6, ports: [{port: 80}]}",
        &expect![[r#"
            Service "web"
            spec.clusterIPs[0]: Invalid value: []string{"10.43.0.6"}: may not change once set
        "#]],
    );
    update(
        "apiVersion: v1, kind: Service",
        "spec: {clusterIP: 10.43.0.5, ports: [{port: 80}]}",
        "spec: {ports: [{port: 81}]}",
        &expect!["valid"],
    );
}

#[test]
fn metadata_that_may_not_change() {
    let (kind, old) = create("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, uid: '1'}}").unwrap();
    let (_, mut new) = read(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: other, uid: '2', deletionTimestamp: '2026-01-01T00:00:00Z'}}",
    );
    kind.prepare_update(&mut *new, &*old);
    let error = kind.validate_update(&*new, &*old).unwrap_err();
    expect![[r#"
        ConfigMap "b"
        metadata.name: Invalid value: "b": field is immutable
        metadata.namespace: Invalid value: "other": field is immutable
        metadata.uid: Invalid value: "2": field is immutable
        metadata.deletionTimestamp: Invalid value: "2026-01-01T00:00:00Z": field is immutable
    "#]]
    .assert_eq(&message(&error));
}
