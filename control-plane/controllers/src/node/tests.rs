//! Nodes and their taints as data.

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use super::eviction::{self, stay};
use super::plan::{Heard, set_conditions, set_taints};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn node(ready: &str, unschedulable: bool) -> Node {
    let status = match ready {
        "" => json!({}),
        _ => {
            json!({"conditions": [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}]})
        }
    };
    let spec = json!({"unschedulable": unschedulable});
    serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec, "status": status})).unwrap()
}

fn told(node: &Node) -> String {
    let conditions = node
        .status
        .clone()
        .unwrap_or_default()
        .conditions
        .unwrap_or_default();
    let taints = node.spec.clone().unwrap_or_default().taints.unwrap_or_default();
    let conditions = conditions.iter().map(|condition| {
        format!(
            "{}={}({})",
            condition.type_,
            condition.status,
            condition.reason.clone().unwrap_or_default()
        )
    });
    let taints = taints.iter().map(|taint| {
        format!(
            "{}:{}",
            taint.key.trim_start_matches("node.kubernetes.io/"),
            taint.effect
        )
    });
    conditions.chain(taints).collect::<Vec<String>>().join(" ")
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes values")]
fn check(mut node: Node, heard: &[Heard], expected: Expect) {
    for (heard, second) in heard.iter().zip(1..) {
        set_conditions(&mut node, *heard, at(second));
        set_taints(&mut node, at(second));
        assert!(
            !set_conditions(&mut node, *heard, at(50)),
            "a second look changes nothing"
        );
        assert!(!set_taints(&mut node, at(50)), "a second look changes nothing");
    }
    expected.assert_eq(&told(&node));
}

#[test]
fn a_node_that_is_heard_is_left_alone() {
    check(
        node("True", false),
        &[Heard::Lately],
        expect!["Ready=True() DiskPressure=False()"],
    );
}

#[test]
fn a_silent_node_is_unknown_and_tainted() {
    check(
        node("True", false),
        &[Heard::Silent],
        expect![
            "Ready=Unknown(NodeStatusUnknown) DiskPressure=Unknown(NodeStatusUnknown) \
             MemoryPressure=Unknown(NodeStatusNeverUpdated) PIDPressure=Unknown(NodeStatusNeverUpdated) \
             unreachable:NoSchedule unreachable:NoExecute"
        ],
    );
}

#[test]
fn a_node_that_is_heard_again_is_as_before() {
    check(
        node("True", false),
        &[Heard::Silent, Heard::Lately],
        expect!["Ready=True(KubeletReady) DiskPressure=False(KubeletIsBack)"],
    );
}

#[test]
fn a_node_that_says_it_is_not_ready_is_tainted_so() {
    check(
        node("False", true),
        &[Heard::Lately],
        expect![
            "Ready=False() DiskPressure=False() not-ready:NoSchedule not-ready:NoExecute unschedulable:NoSchedule"
        ],
    );
}

/// How long a pod with these tolerations stays on a node tainted 10 seconds ago.
#[expect(clippy::needless_pass_by_value, reason = "expect! makes values")]
fn check_stay(tolerations: serde_json::Value, taint: &str, expected: Expect) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"}, "spec": {"containers": [], "tolerations": tolerations},
    }))
    .unwrap();
    let taint =
        json!({"key": taint, "value": "v", "effect": "NoExecute", "timeAdded": "1970-01-01T00:00:10Z"});
    let node: Node =
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": [taint]}})).unwrap();
    expected.assert_eq(&format!(
        "{:?}",
        stay(&pod, &eviction::driving(&node), 30, at(20))
    ));
}

#[test]
fn pods_stay_as_long_as_they_bear_the_taint() {
    let unreachable = "node.kubernetes.io/unreachable";
    let bears = |seconds: serde_json::Value| json!([{"key": unreachable, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    check_stay(json!([]), unreachable, expect!["For(20s)"]);
    check_stay(json!([]), "other", expect!["Over"]);
    check_stay(
        json!([{"key": "other", "value": "v"}]),
        "other",
        expect!["ForEver"],
    );
    check_stay(json!([{"key": "other", "value": "w"}]), "other", expect!["Over"]);
    check_stay(json!([{"operator": "Exists"}]), unreachable, expect!["ForEver"]);
    check_stay(bears(json!(15)), unreachable, expect!["For(5s)"]);
    check_stay(bears(json!(10)), unreachable, expect!["Over"]);
    check_stay(bears(json!(0)), unreachable, expect!["Over"]);
    check_stay(bears(json!(null)), unreachable, expect!["ForEver"]);
}
