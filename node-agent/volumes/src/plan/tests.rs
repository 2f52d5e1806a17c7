//! Plans of mounts, as data.

use expect_test::{Expect, expect};
use flotilla_lifecycle::References;

use super::*;

fn check(volume: &str, limits: &str, expected: &Expect) {
    let pod: Pod = serde_json::from_str(&format!(
        r#"{{"metadata":{{"name":"p"}},"spec":{{"containers":[{{"name":"c","resources":{{"limits":{limits}}}}}],
            "volumes":[{{"name":"v",{volume}}}]}}}}"#
    ))
    .unwrap();
    let allocatable = serde_json::from_str(r#"{"memory":"1Gi"}"#).unwrap();
    let facts = Facts {
        pod: &pod,
        references: &References::default(),
        addresses: &[],
        host_addresses: &[],
        allocatable: &allocatable,
        services: &[],
    };
    let [(_, found)] = plan(&facts, &Tokens::default()).try_into().unwrap();
    let found = match found {
        Ok(source) => format!("{source:?}"),
        Err(problem) => format!("error: {problem}"),
    };
    expected.assert_eq(&found);
}

#[test]
fn memory_is_limited_by_volume_pod_and_node() {
    let memory = r#""emptyDir":{"medium":"Memory"}"#;
    check(memory, "{}", &expect!["Memory { bytes: Some(1073741824) }"]);
    check(
        memory,
        r#"{"memory":"64Mi"}"#,
        &expect!["Memory { bytes: Some(67108864) }"],
    );
    let limited = r#""emptyDir":{"medium":"Memory","sizeLimit":"1Mi"}"#;
    check(
        limited,
        r#"{"memory":"64Mi"}"#,
        &expect!["Memory { bytes: Some(1048576) }"],
    );
}

#[test]
fn every_kind_of_volume_has_a_source_or_a_reason() {
    check(r#""emptyDir":{}"#, "{}", &expect!["Folder"]);
    check(
        r#""emptyDir":{"medium":"HugePages-2Mi"}"#,
        "{}",
        &expect![[r#"HugePages { page_size: Some("2M") }"#]],
    );
    check(
        r#""emptyDir":{"medium":"Tape"}"#,
        "{}",
        &expect![[r#"error: unknown storage medium "Tape""#]],
    );
    check(
        r#""hostPath":{"path":"/dev/null","type":"CharDevice"}"#,
        "{}",
        &expect![[r#"Path { path: "/dev/null", kind: CharDevice }"#]],
    );
    check(
        r#""image":{"reference":"x:1"}"#,
        "{}",
        &expect![[r#"Image { reference: "x:1" }"#]],
    );
    check(
        r#""awsElasticBlockStore":{"volumeID":"x"}"#,
        "{}",
        &expect![
            "error: no volume plugin matched: this node knows configMap, secret, downwardAPI, projected, emptyDir, hostPath, image, persistentVolumeClaim and ephemeral volumes"
        ],
    );
}
