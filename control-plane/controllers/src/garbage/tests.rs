//! Owners and dependents as data.

use expect_test::{Expect, expect};
use flotilla_api::registry;
use flotilla_store::Key;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::graph::{Graph, Node};
use super::plan::{Owner, plan};
use crate::follow::{Meta, resource_name};

/// `uid`, then words: `deleting`, `foreground`, `orphan`, `of=UID`, `blocks=UID` (an owner that it blocks).
fn node(words: &str) -> Node {
    let mut words = words.split_whitespace();
    let uid = words.next().unwrap();
    let mut meta = Meta {
        uid: uid.to_owned(),
        owner_references: vec![],
        finalizers: vec![],
        deletion_timestamp: None,
    };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "deleting" => meta.deletion_timestamp = Some(jiff::Timestamp::UNIX_EPOCH),
            "foreground" => meta.finalizers.push("foregroundDeletion".to_owned()),
            "orphan" => meta.finalizers.push("orphan".to_owned()),
            "of" | "blocks" => {
                let owner = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "name": value, "uid": value,
                    "blockOwnerDeletion": key == "blocks",
                });
                meta.owner_references.push(serde_json::from_value(owner).unwrap());
            }
            _ => panic!("what is {word}?"),
        }
    }
    let kind = registry().of::<ConfigMap>();
    Node {
        kind,
        key: Key::new(resource_name(kind), "default", uid),
        meta,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes values")]
fn check(words: &str, owners: &[Owner], dependents: &[&str], expected: Expect) {
    let dependents: Vec<Node> = dependents.iter().map(|words| node(words)).collect();
    let verdict = plan(&node(words), owners, &dependents.iter().collect::<Vec<_>>());
    expected.assert_eq(&format!("{verdict:?}"));
}

#[test]
fn what_somebody_owns_stays() {
    check("a", &[], &[], expect!["Keep"]);
    check("a of=x", &[Owner::Solid], &[], expect!["Keep"]);
    check(
        "a of=x of=y",
        &[Owner::Solid, Owner::Absent],
        &[],
        expect![[r#"DropOwners(["y"])"#]],
    );
    check(
        "a of=x of=y",
        &[Owner::Waiting, Owner::Solid],
        &[],
        expect![[r#"DropOwners(["x"])"#]],
    );
}

#[test]
fn what_nobody_owns_goes_the_way_its_finalizers_say() {
    check("a of=x", &[Owner::Absent], &[], expect!["Delete(Background)"]);
    check("a of=x", &[Owner::Waiting], &[], expect!["Delete(Background)"]);
    check(
        "a of=x",
        &[Owner::Waiting],
        &["b of=a"],
        expect!["Delete(Foreground)"],
    );
    check(
        "a of=x orphan",
        &[Owner::Absent],
        &["b of=a"],
        expect!["Delete(Orphan)"],
    );
    check("a of=x deleting", &[Owner::Absent], &[], expect!["Keep"]);
}

#[test]
fn a_foreground_deletion_waits_for_those_that_block_it() {
    check("a deleting foreground", &[], &[], expect!["EndForeground"]);
    check(
        "a deleting foreground",
        &[],
        &["b of=a"],
        expect!["EndForeground"],
    );
    check(
        "a deleting foreground",
        &[],
        &["b blocks=a"],
        expect!["AskDependents"],
    );
    check("a deleting orphan", &[], &["b blocks=a"], expect!["Orphan"]);
}

#[test]
fn the_graph_tells_whom_a_change_concerns() {
    let mut graph = Graph::default();
    let mut see = |words: &str| graph.observe(node(words)).join(" ");
    assert_eq!(see("a"), "");
    assert_eq!(see("b of=a"), "");
    assert_eq!(see("lost of=x"), "lost");
    assert_eq!(see("a deleting foreground"), "a");
    assert_eq!(see("b"), "a", "the owner need not wait for it any more");
    assert_eq!(see("c of=a"), "c", "its owner is on its way out");
    assert_eq!(graph.forget("c"), ["a"]);
    assert_eq!(graph.forget("a"), [] as [&str; 0]);
    graph.observe(node("d of=e"));
    graph.observe(node("e"));
    assert_eq!(graph.forget("e"), ["d"]);
}
