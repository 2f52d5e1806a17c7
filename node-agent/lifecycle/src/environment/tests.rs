//! Variables from values, fields, config maps and secrets.

use super::*;

const POD: &str = r#"{
  "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}, "annotations": {"a/b": "c"}},
  "spec": {"nodeName": "agent-1", "serviceAccountName": "default", "containers": [
    {"name": "web", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}}]}}"#;

fn check(container: &str, expected: &str) {
    let pod: Pod = serde_json::from_str(POD).unwrap();
    let references = References {
        config_maps: BTreeMap::from([(
            "conf".to_owned(),
            serde_json::from_str(r#"{"data":{"COLOR":"blue","SIZE":"big","bad=key":"x"}}"#).unwrap(),
        )]),
        secrets: BTreeMap::from([(
            "pass".to_owned(),
            serde_json::from_str(r#"{"data":{"TOKEN":"czNjcmV0"}}"#).unwrap(),
        )]),
        ..References::default()
    };
    let allocatable = serde_json::from_str(r#"{"cpu":"2","memory":"4Gi"}"#).unwrap();
    let facts = Facts {
        pod: &pod,
        references: &references,
        addresses: &["10.42.1.2".parse().unwrap()],
        host_addresses: &["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        allocatable: &allocatable,
        services: &[],
    };
    let container: Container = serde_json::from_str(container).unwrap();
    let base = vec![("PATH".to_owned(), "/bin".to_owned())];
    let found = match environment(&facts, &container, base) {
        Ok(pairs) => pairs
            .into_iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(" "),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected, "{container:?}");
}

#[test]
fn values_refer_to_earlier_values() {
    check(
        r#"{"name":"web","env":[{"name":"A","value":"1"},{"name":"B","value":"$(A)$(C)"},{"name":"C","value":"3"}]}"#,
        "PATH=/bin A=1 B=1$(C) C=3",
    );
}

#[test]
fn the_containers_variables_win_over_the_images_and_later_ones_over_earlier() {
    check(
        r#"{"name":"web","env":[{"name":"PATH","value":"/x"},{"name":"A","value":"1"},{"name":"A","value":"2"}]}"#,
        "PATH=/x A=2",
    );
}

#[test]
fn fields_of_the_pod_can_be_named() {
    let field = |path: &str| {
        format!(
            r#"{{"name":"w","env":[{{"name":"F","valueFrom":{{"fieldRef":{{"fieldPath":"{path}"}}}}}}]}}"#
        )
    };
    let cases = [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['a/b']", "c"),
        ("spec.nodeName", "agent-1"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.42.1.2"),
        ("status.hostIPs", "10.0.0.1,fd00::1"),
    ];
    for (path, value) in cases {
        check(&field(path), &format!("PATH=/bin F={value}"));
    }
    check(&field("spec.foo"), "unsupported fieldPath: spec.foo");
}

#[test]
fn resources_are_divided_and_rounded_up() {
    let of = |resource: &str, divisor: &str| {
        format!(
            r#"{{"name":"web","env":[{{"name":"R","valueFrom":{{"resourceFieldRef":{{"containerName":"web","resource":"{resource}","divisor":"{divisor}"}}}}}}]}}"#
        )
    };
    let cases = [
        ("limits.cpu", "0", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "100"),
        ("limits.memory", "1Mi", "64"),
        ("requests.memory", "1", "0"),
    ];
    for (resource, divisor, value) in cases {
        check(&of(resource, divisor), &format!("PATH=/bin R={value}"));
    }
    check(&of("shape", "1"), "unsupported container resource: shape");
    check(
        r#"{"name":"bare","env":[{"name":"R","valueFrom":{"resourceFieldRef":{"resource":"limits.memory","divisor":"1Gi"}}}]}"#,
        "PATH=/bin R=4",
    );
}

#[test]
fn keys_of_config_maps_and_secrets_can_be_named() {
    check(
        r#"{"name":"w","env":[{"name":"C","valueFrom":{"configMapKeyRef":{"name":"conf","key":"COLOR"}}},
            {"name":"T","valueFrom":{"secretKeyRef":{"name":"pass","key":"TOKEN"}}},{"name":"U","value":"<$(T)>"}]}"#,
        "PATH=/bin C=blue T=s3cret U=<s3cret>",
    );
}

#[test]
fn what_is_missing_is_named_unless_it_is_optional() {
    let key = |source: &str| format!(r#"{{"name":"w","env":[{{"name":"C","valueFrom":{{{source}}}}}]}}"#);
    let cases = [
        (
            r#""configMapKeyRef":{"name":"no","key":"k"}"#,
            r#"configmap "no" not found"#,
        ),
        (
            r#""configMapKeyRef":{"name":"conf","key":"k"}"#,
            "couldn't find key k in ConfigMap shop/conf",
        ),
        (
            r#""secretKeyRef":{"name":"no","key":"k"}"#,
            r#"secret "no" not found"#,
        ),
        (
            r#""secretKeyRef":{"name":"pass","key":"k"}"#,
            "couldn't find key k in Secret shop/pass",
        ),
        (
            r#""secretKeyRef":{"name":"pass","key":"k","optional":true}"#,
            "PATH=/bin",
        ),
        (
            r#""configMapKeyRef":{"name":"no","key":"k","optional":true}"#,
            "PATH=/bin",
        ),
    ];
    for (source, expected) in cases {
        check(&key(source), expected);
    }
}

#[test]
fn whole_objects_become_variables_with_a_prefix() {
    check(
        r#"{"name":"w","envFrom":[{"prefix":"P_","configMapRef":{"name":"conf"}},{"secretRef":{"name":"pass"}},
            {"secretRef":{"name":"no","optional":true}}],"env":[{"name":"P_SIZE","value":"small"}]}"#,
        "PATH=/bin P_COLOR=blue P_SIZE=small TOKEN=s3cret",
    );
    check(
        r#"{"name":"w","envFrom":[{"configMapRef":{"name":"no"}}]}"#,
        r#"configmap "no" not found"#,
    );
}
