//! Sets of pods as data: a line says what is there, the answer says what is to be done.

use std::sync::Arc;

use expect_test::{Expect, expect};
use flotilla_api::selector::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::plan::{PodSet, Step, claim, plan};
use super::status::{Failure, SetStatus, observe};
use crate::labels::controller_ref;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn owner(uid: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some("web".to_owned()),
        uid: Some(uid.to_owned()),
        generation: Some(1),
        ..ObjectMeta::default()
    }
}

/// `name`, then words: `ready`, `pending`, `failed`, `deleting`, `on=NODE`, `cost=N`, `restarts=N`, `created=N`,
/// `since=N`, `of=UID` (its controller, `-` for none), `app=LABEL`.
fn pod(words: &str) -> Arc<Pod> {
    let mut words = words.split_whitespace();
    let mut pod = Pod::default();
    pod.metadata.name = words.next().map(str::to_owned);
    pod.metadata.uid.clone_from(&pod.metadata.name);
    pod.metadata.creation_timestamp = Some(at(0));
    pod.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some("n".to_owned());
    let mut status = PodStatus {
        phase: Some("Running".to_owned()),
        ..PodStatus::default()
    };
    let (mut ready, mut since, mut uid) = (false, 0, "s");
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "ready" => ready = true,
            "pending" => status.phase = Some("Pending".to_owned()),
            "failed" => status.phase = Some("Failed".to_owned()),
            "deleting" => pod.metadata.deletion_timestamp = Some(at(0)),
            "on" => spec.node_name = Some(value.to_owned()).filter(|node| !node.is_empty()),
            "cost" => {
                let cost = (
                    "controller.kubernetes.io/pod-deletion-cost".to_owned(),
                    value.to_owned(),
                );
                pod.metadata.annotations = Some([cost].into());
            }
            "restarts" => {
                let container = ContainerStatus {
                    restart_count: value.parse().unwrap(),
                    ..ContainerStatus::default()
                };
                status.container_statuses = Some(vec![container]);
            }
            "created" => pod.metadata.creation_timestamp = Some(at(value.parse().unwrap())),
            "since" => since = value.parse().unwrap(),
            "of" => uid = value,
            "app" => pod.metadata.labels = Some([("app".to_owned(), value.to_owned())].into()),
            _ => panic!("what is {word}?"),
        }
    }
    status.conditions = Some(vec![PodCondition {
        type_: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        last_transition_time: Some(at(since)),
        ..PodCondition::default()
    }]);
    pod.status = Some(status);
    if uid != "-" {
        pod.metadata.owner_references = Some(vec![controller_ref("apps/v1", "ReplicaSet", &owner(uid))]);
    }
    Arc::new(pod)
}

fn with_set<R>(
    replicas: i32,
    min_ready_seconds: i32,
    pods: &str,
    ask: impl FnOnce(&PodSet<'_>, Vec<Arc<Pod>>) -> R,
) -> R {
    let meta = owner("s");
    let selector = LabelSelector::parse("app=web").unwrap();
    let set = PodSet {
        meta: &meta,
        replicas,
        min_ready_seconds,
        selector,
        template: None,
    };
    let pods = pods
        .split(',')
        .map(str::trim)
        .filter(|words| !words.is_empty())
        .map(pod)
        .collect();
    ask(&set, pods)
}

fn names(pods: &[Arc<Pod>]) -> String {
    let names: Vec<&str> = pods
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    names.join(" ")
}

/// `wants N: pod, pod …`
#[expect(clippy::needless_pass_by_value, reason = "expect! makes values")]
fn check(scenario: &str, expected: Expect) {
    let (wants, pods) = scenario.split_once(':').unwrap();
    let replicas = wants.trim_start_matches("wants ").parse().unwrap();
    let told = with_set(replicas, 0, pods, |set, pods| {
        let steps = plan(set, &pods, &pods).into_iter().map(|step| match step {
            Step::Create(count) => format!("create {count}"),
            Step::Delete(pod) => format!("delete {}", pod.metadata.name.clone().unwrap()),
        });
        steps.collect::<Vec<String>>().join(", ")
    });
    expected.assert_eq(&told);
}

#[test]
fn missing_pods_are_made() {
    check("wants 3:", expect!["create 3"]);
    check("wants 3: a ready, b ready", expect!["create 1"]);
    check("wants 2: a ready, b", expect![""]);
    check("wants 2000:", expect!["create 500"]);
}

#[test]
fn pods_that_ended_or_are_ending_are_replaced_at_once() {
    check("wants 2: a ready, b failed", expect!["create 1"]);
    check("wants 2: a ready, b ready deleting", expect!["create 1"]);
}

#[test]
fn surplus_pods_go_unready_first() {
    check("wants 1: a ready, b", expect!["delete b"]);
    check("wants 0: a, b", expect!["delete a, delete b"]);
}

#[test]
fn what_costs_least_goes_first() {
    check("wants 1: a pending on=n, b pending on=", expect!["delete b"]);
    check("wants 1: a ready, b pending ready", expect!["delete b"]);
    check("wants 1: a ready cost=5, b ready cost=-5", expect!["delete b"]);
    check(
        "wants 2: a ready on=x, b ready on=y, c ready on=y",
        expect!["delete b"],
    );
    check("wants 1: a ready since=10, b ready since=20", expect!["delete b"]);
    check(
        "wants 1: a ready restarts=1, b ready restarts=9",
        expect!["delete b"],
    );
    check(
        "wants 1: a ready created=1, b ready created=2",
        expect!["delete b"],
    );
}

#[test]
fn readiness_outweighs_cost() {
    check("wants 1: a ready cost=-100, b cost=100", expect!["delete b"]);
}

#[test]
fn pods_are_claimed_by_owner_and_label() {
    let pods = "mine, other of=x, free of=-, stray app=db, strange of=- app=db, ending of=- deleting, done of=- failed";
    let told = with_set(3, 0, pods, |set, pods| {
        let claim = claim(set, &pods);
        format!(
            "own {}; adopt {}; release {}",
            names(&claim.owned),
            names(&claim.adopt),
            names(&claim.release)
        )
    });
    expect!["own mine; adopt free; release stray"].assert_eq(&told);
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes values")]
fn check_status(min_ready_seconds: i32, pods: &str, expected: Expect) {
    let told = with_set(3, min_ready_seconds, pods, |set, pods| {
        let now = Timestamp::from_second(100).unwrap();
        let (status, recheck) = observe(set, &SetStatus::default(), &pods, None, now);
        let SetStatus {
            replicas,
            ready,
            available,
            terminating,
            ..
        } = status;
        format!(
            "{replicas} replicas, {ready} ready, {available} available, {terminating} ending, again {recheck:?}"
        )
    });
    expected.assert_eq(&told);
}

#[test]
fn the_status_counts_pods_by_what_they_are() {
    let pods = "a ready since=10, b, c deleting ready, d failed, e ready since=95";
    check_status(
        0,
        pods,
        expect!["3 replicas, 2 ready, 2 available, 1 ending, again None"],
    );
    check_status(
        30,
        pods,
        expect!["3 replicas, 2 ready, 1 available, 1 ending, again Some(25s)"],
    );
}

#[test]
fn a_failure_stays_in_the_status_until_it_is_over() {
    let failure = Failure {
        reason: "FailedCreate",
        message: "no".to_owned(),
    };
    with_set(3, 0, "", |set, pods| {
        let now = Timestamp::from_second(100).unwrap();
        let (failing, _) = observe(set, &SetStatus::default(), &pods, Some(&failure), now);
        assert_eq!(failing.conditions[0].reason.as_deref(), Some("FailedCreate"));
        let later = Timestamp::from_second(200).unwrap();
        assert_eq!(observe(set, &failing, &pods, Some(&failure), later).0, failing);
        assert_eq!(observe(set, &failing, &pods, None, later).0.conditions, []);
    });
}
