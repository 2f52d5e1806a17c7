//! What ends up in the files of volumes.

use expect_test::{Expect, expect};
use flotilla_lifecycle::{Quantities, References};
use serde_json::{Value, json};

use super::*;

const POD: &str = r#"{
    "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1",
        "labels": {"app": "web", "tier": "a \"b\""}, "annotations": {"note": "two\nlines"}},
    "spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "64Mi", "cpu": "250m"}}}]}
}"#;

fn references() -> References {
    let map = json!({"metadata": {"name": "settings"}, "data": {"a": "1", "b": "2"}, "binaryData": {"raw": "/w=="}});
    let secret = json!({"metadata": {"name": "key"}, "data": {"tls.key": "aGVsbG8="}});
    References {
        config_maps: [("settings".to_owned(), serde_json::from_value(map).unwrap())].into(),
        secrets: [("key".to_owned(), serde_json::from_value(secret).unwrap())].into(),
        ..References::default()
    }
}

fn show(files: Result<Files, String>) -> String {
    let one = |(path, entry): (&String, &Entry)| {
        let owner = entry.owner.map_or(String::new(), |owner| format!(" of {owner}"));
        let text = String::from_utf8_lossy(&entry.data);
        format!("{path} {:o}{owner} {text:?}", entry.mode)
    };
    match files {
        Ok(files) => files.iter().map(one).collect::<Vec<_>>().join("\n"),
        Err(problem) => format!("error: {problem}"),
    }
}

fn check_in(pod: &str, volume: &Value, expected: &Expect) {
    let pod: Pod = serde_json::from_str(pod).unwrap();
    let references = references();
    let allocatable = Quantities::default();
    let facts = Facts {
        pod: &pod,
        references: &references,
        addresses: &["10.42.0.9".parse().unwrap()],
        host_addresses: &[],
        allocatable: &allocatable,
        services: &[],
    };
    let wanted = TokenWanted {
        audience: String::new(),
        seconds: 3607,
    };
    let tokens = [(wanted, Ok("the-token".to_owned()))].into();
    let sources = Sources {
        facts: &facts,
        tokens: &tokens,
    };
    let read = |kind: &str| volume.get(kind).cloned();
    let found = if let Some(wanted) = read("configMap") {
        sources.config_map(&serde_json::from_value(wanted).unwrap())
    } else if let Some(wanted) = read("secret") {
        sources.secret(&serde_json::from_value(wanted).unwrap())
    } else if let Some(wanted) = read("downwardAPI") {
        sources.downward(&serde_json::from_value(wanted).unwrap())
    } else {
        sources.projected(&serde_json::from_value(volume["projected"].clone()).unwrap())
    };
    expected.assert_eq(&show(found));
}

#[track_caller]
fn check(volume: &Value, expected: &Expect) {
    check_in(POD, volume, expected);
}

#[test]
fn a_config_map_shows_all_its_keys_or_those_that_are_asked_for() {
    check(
        &json!({"configMap": {"name": "settings", "defaultMode": 0o400}}),
        &expect![[r#"
            a 400 "1"
            b 400 "2"
            raw 400 "�""#]],
    );
    check(
        &json!({"configMap": {"name": "settings", "items": [
            {"key": "b", "path": "deep/b.txt"}, {"key": "a", "path": "a", "mode": 0o600}]}}),
        &expect![[r#"
            a 600 "1"
            deep/b.txt 644 "2""#]],
    );
}

#[test]
fn what_is_missing_is_told_in_kubelets_words_unless_it_is_optional() {
    check(
        &json!({"configMap": {"name": "none"}}),
        &expect![[r#"error: configmap "none" not found"#]],
    );
    check(
        &json!({"configMap": {"name": "none", "optional": true}}),
        &expect![""],
    );
    check(
        &json!({"configMap": {"name": "settings", "items": [{"key": "z", "path": "z"}]}}),
        &expect!["error: configmap references non-existent config key: z"],
    );
    check(
        &json!({"configMap": {"name": "settings", "optional": true, "items": [
            {"key": "z", "path": "z"}, {"key": "a", "path": "a"}]}}),
        &expect![[r#"a 644 "1""#]],
    );
    check(
        &json!({"secret": {"secretName": "none"}}),
        &expect![[r#"error: secret "none" not found"#]],
    );
    check(
        &json!({"secret": {"secretName": "key", "items": [{"key": "z", "path": "z"}]}}),
        &expect!["error: references non-existent secret key: z"],
    );
}

#[test]
fn fields_and_resources_become_files() {
    check(
        &json!({"downwardAPI": {"defaultMode": 0o444, "items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "notes", "fieldRef": {"fieldPath": "metadata.annotations"}},
            {"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}},
            {"path": "memory", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory", "divisor": "1Mi"}},
            {"path": "cpu", "mode": 0o600, "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}}]}}),
        &expect![[r#"
            app 444 "web"
            cpu 600 "1"
            labels 444 "app=\"web\"\ntier=\"a \\\"b\\\"\""
            memory 444 "64"
            notes 444 "note=\"two\\nlines\"""#]],
    );
    check(
        &json!({"downwardAPI": {"items": [
            {"path": "x", "resourceFieldRef": {"containerName": "other", "resource": "limits.cpu"}}]}}),
        &expect!["error: container other not found"],
    );
}

fn account(pod_rest: &str) -> String {
    format!(
        r#"{{"metadata": {{"name": "p", "namespace": "shop"}}, "spec": {{"containers": [{{"name": "a"}}], {pod_rest}}}}}"#
    )
}

fn token_volume(seconds: i64) -> Value {
    json!({"projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": seconds}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}})
}

#[test]
fn a_token_is_read_by_those_who_are_meant_to() {
    let volume = token_volume(3607);
    check_in(
        &account(r#""volumes": []"#),
        &volume,
        &expect![[r#"
            namespace 644 "shop"
            token 644 "the-token""#]],
    );
    check_in(
        &account(r#""securityContext": {"runAsUser": 1000}"#),
        &volume,
        &expect![[r#"
            namespace 644 "shop"
            token 600 of 1000 "the-token""#]],
    );
    check_in(
        &account(r#""securityContext": {"fsGroup": 2000}"#),
        &volume,
        &expect![[r#"
            namespace 644 "shop"
            token 600 "the-token""#]],
    );
    check(
        &token_volume(7200),
        &expect![["error: failed to fetch token: nobody has asked for it"]],
    );
}

#[test]
fn a_projection_tells_everything_that_is_wrong_with_it() {
    check(
        &json!({"projected": {"sources": [{"configMap": {"name": "settings"}}, {"configMap": {"name": "none"}}]}}),
        &expect![[r#"error: configmap "none" not found"#]],
    );
    check(
        &json!({"projected": {"sources": [{"configMap": {"name": "none"}}, {"secret": {"name": "neither"}}]}}),
        &expect![[r#"error: [configmap "none" not found, secret "neither" not found]"#]],
    );
}
