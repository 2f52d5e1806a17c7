//! StatefulSets as data: a line says what is there, the answer says what is to be done.

use std::sync::Arc;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use serde_json::{Value, json};

use super::claims::Claims;
use super::plan::{Observed, Revisions, Step, plan};
use super::{identity, revisions, status};

const NOW: i64 = 1000;
const REVISIONS: Revisions<'static> = Revisions {
    current: "web-old",
    update: "web-new",
};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": image}]}})
}

/// A set of three pods with the policy OrderedReady; `spec` changes that.
fn set(spec: &Value) -> StatefulSet {
    let mut all = json!({
        "replicas": 3, "serviceName": "web", "podManagementPolicy": "OrderedReady",
        "selector": {"matchLabels": {"app": "web"}}, "template": template("new"),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    });
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "set", "generation": 1}, "spec": all,
    }))
    .unwrap()
}

/// `web-0`, then words: `old` (its revision), `pending`, `failed`, `done`, `unready`, `deleting`, `since=N`, `bare`
/// (without its labels).
fn pod(words: &str) -> Arc<Pod> {
    let name = words.split(' ').next().unwrap();
    let has = |word: &str| words.split(' ').any(|found| found == word);
    let since = words
        .split(' ')
        .find_map(|word| word.strip_prefix("since=")?.parse().ok())
        .unwrap_or(0);
    let phase = match () {
        () if has("pending") => "Pending",
        () if has("failed") => "Failed",
        () if has("done") => "Succeeded",
        () => "Running",
    };
    let ready = phase == "Running" && !has("unready");
    let mut labels = json!({
        "app": "web", "controller-revision-hash": if has("old") { "web-old" } else { "web-new" },
        "statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": name.rsplit('-').next(),
    });
    if has("bare") {
        labels["statefulset.kubernetes.io/pod-name"] = "".into();
    }
    let deleted = has("deleting").then_some("2026-01-01T00:00:00Z");
    let pod = json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": labels, "deletionTimestamp": deleted},
        "status": {"phase": phase, "conditions": [{
            "type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": Timestamp::from_second(since).unwrap().to_string(),
        }]},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn told(step: &Step) -> String {
    let name = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| meta.name.clone().unwrap();
    let names = |claims: &[PersistentVolumeClaim]| {
        let all: Vec<String> = claims
            .iter()
            .map(|claim| format!(" +{}", name(&claim.metadata)))
            .collect();
        all.concat()
    };
    match step {
        Step::Create { pod, claims } => {
            let revision = identity::revision_of_pod(pod);
            let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
            format!(
                "create {} {revision} {image}{}",
                name(&pod.metadata),
                names(claims)
            )
        }
        Step::CreateClaims { pod, claims } => format!("claims of {pod}{}", names(claims)),
        Step::Correct(pod, ordinal) => format!("correct {} {ordinal}", name(&pod.metadata)),
        Step::Own(claim) => {
            let owners = claim.metadata.owner_references.iter().flatten();
            let owners: Vec<String> = owners
                .map(|owner| format!(" {}/{}", owner.kind, owner.name))
                .collect();
            format!("own {}:{}", name(&claim.metadata), owners.concat())
        }
        Step::Delete(pod, why) => format!("delete {} {why:?}", name(&pod.metadata)),
    }
}

/// The steps for a set with these pods and claims, one a line.
fn steps(set: &StatefulSet, pods: &[&str], claims: &[Arc<PersistentVolumeClaim>]) -> String {
    let pods: Vec<Arc<Pod>> = pods.iter().map(|words| pod(words)).collect();
    let current: PodTemplateSpec = serde_json::from_value(template("old")).unwrap();
    let steps = plan(&Observed {
        set,
        pods: &pods,
        claims: Claims::new(claims),
        revisions: REVISIONS,
        current: &current,
        now: Timestamp::from_second(NOW).unwrap(),
    });
    steps.iter().map(|step| told(step) + "\n").collect()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "an expectation is made for one check"
)]
fn check(spec: &Value, pods: &[&str], expected: Expect) {
    expected.assert_eq(&steps(&set(spec), pods, &[]));
}

#[test]
fn pods_come_up_in_order_each_when_the_one_before_is_ready() {
    check(
        &json!({}),
        &[],
        expect![[r#"
        create web-0 web-new new
    "#]],
    );
    check(
        &json!({}),
        &["web-0"],
        expect![[r#"
        create web-1 web-new new
    "#]],
    );
    check(&json!({}), &["web-0 unready"], expect![""]);
    check(
        &json!({}),
        &["web-0", "web-2"],
        expect![[r#"
        create web-1 web-new new
    "#]],
    );
    check(&json!({}), &["web-0 deleting"], expect![""]);
    check(&json!({"minReadySeconds": 30}), &["web-0 since=990"], expect![""]);
    check(
        &json!({"minReadySeconds": 30}),
        &["web-0 since=970"],
        expect![[r#"
        create web-1 web-new new
    "#]],
    );
    check(
        &json!({"ordinals": {"start": 5}, "replicas": 1}),
        &[],
        expect![[r#"
            create web-5 web-new new
        "#]],
    );
}

#[test]
fn parallel_pods_do_not_wait_for_each_other() {
    let parallel = json!({"podManagementPolicy": "Parallel"});
    check(
        &parallel,
        &["web-1 unready"],
        expect![[r#"
        create web-0 web-new new
        create web-2 web-new new
    "#]],
    );
    let down = json!({"podManagementPolicy": "Parallel", "replicas": 1});
    check(
        &down,
        &["web-0 unready", "web-1 pending", "web-2"],
        expect![[r#"
        delete web-2 Condemned
        delete web-1 Condemned
    "#]],
    );
}

#[test]
fn pods_that_have_ended_are_made_anew() {
    check(
        &json!({}),
        &["web-0", "web-1 failed", "web-2"],
        expect![[r#"
        delete web-1 Failed
    "#]],
    );
    check(
        &json!({}),
        &["web-0 done"],
        expect![[r#"
        delete web-0 Succeeded
    "#]],
    );
    check(&json!({}), &["web-0 failed deleting"], expect![""]);
}

#[test]
fn surplus_pods_go_one_by_one_the_highest_first() {
    let two = json!({"replicas": 1});
    check(
        &two,
        &["web-0", "web-1", "web-2"],
        expect![[r#"
        delete web-2 Condemned
    "#]],
    );
    check(&two, &["web-0", "web-1", "web-2 deleting"], expect![""]);
    check(
        &two,
        &["web-0", "web-1 unready", "web-2"],
        expect![[r#"
        delete web-2 Condemned
    "#]],
    );
    check(
        &two,
        &["web-0", "web-1", "web-2 unready"],
        expect![[r#"
        delete web-2 Condemned
    "#]],
    );
    check(&two, &["web-0", "web-1 unready", "web-2 unready"], expect![""]);
    check(&two, &["web-0 unready", "web-1"], expect![""]);
    check(
        &json!({"ordinals": {"start": 1}}),
        &["web-0", "web-1", "web-2", "web-3"],
        expect![[r#"
            delete web-0 Condemned
        "#]],
    );
}

#[test]
fn an_update_goes_from_the_highest_ordinal_down() {
    check(
        &json!({}),
        &["web-0 old", "web-1 old", "web-2 old"],
        expect![[r#"
        delete web-2 Outdated
    "#]],
    );
    check(
        &json!({}),
        &["web-0 old", "web-1 old", "web-2"],
        expect![[r#"
        delete web-1 Outdated
    "#]],
    );
    check(
        &json!({}),
        &["web-0 old", "web-1 old", "web-2 unready"],
        expect![""],
    );
    let on_delete = json!({"updateStrategy": {"type": "OnDelete"}});
    check(&on_delete, &["web-0 old", "web-1 old", "web-2 old"], expect![""]);
    check(
        &on_delete,
        &["web-0 old", "web-2 old"],
        expect![[r#"
        create web-1 web-new new
    "#]],
    );
}

#[test]
fn a_partition_keeps_the_lower_ordinals_as_they_are() {
    let partition = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
    check(
        &partition,
        &["web-0 old", "web-1 old", "web-2 old"],
        expect![[r#"
        delete web-2 Outdated
    "#]],
    );
    check(&partition, &["web-0 old", "web-1 old", "web-2"], expect![""]);
    check(
        &partition,
        &["web-0 old", "web-2"],
        expect![[r#"
        create web-1 web-old old
    "#]],
    );
    check(
        &partition,
        &["web-0 old", "web-1 old"],
        expect![[r#"
        create web-2 web-new new
    "#]],
    );
}

#[test]
fn several_pods_may_be_away_at_once() {
    let max = |share: Value| {
        json!({"podManagementPolicy": "Parallel", "replicas": 4,
               "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": share}}})
    };
    let old = ["web-0 old", "web-1 old", "web-2 old", "web-3 old"];
    check(
        &max(json!(2)),
        &old,
        expect![[r#"
        delete web-3 Outdated
        delete web-2 Outdated
    "#]],
    );
    check(
        &max(json!("50%")),
        &old,
        expect![[r#"
        delete web-3 Outdated
        delete web-2 Outdated
    "#]],
    );
    check(
        &max(json!("10%")),
        &old,
        expect![[r#"
        delete web-3 Outdated
    "#]],
    );
    let half = ["web-0 old", "web-1 old", "web-2 unready", "web-3"];
    check(
        &max(json!(2)),
        &half,
        expect![[r#"
        delete web-1 Outdated
    "#]],
    );
}

/// Kubernetes leaves a broken pod of an ordered set alone: somebody has to delete it, and then it comes back as the
/// template says. A parallel set replaces it by itself.
#[test]
fn a_stuck_rollout_is_repaired_as_in_kubernetes() {
    check(&json!({}), &["web-0", "web-1", "web-2 old unready"], expect![""]);
    check(
        &json!({}),
        &["web-0", "web-1"],
        expect![[r#"
        create web-2 web-new new
    "#]],
    );
    let parallel = json!({"podManagementPolicy": "Parallel"});
    check(
        &parallel,
        &["web-0", "web-1", "web-2 old unready"],
        expect![[r#"
        delete web-2 Outdated
    "#]],
    );
}

#[test]
fn a_set_that_is_being_deleted_does_nothing_and_strangers_are_left_alone() {
    let mut deleted = set(&json!({}));
    deleted.metadata.deletion_timestamp = pod("x deleting").metadata.deletion_timestamp.clone();
    assert_eq!(steps(&deleted, &[], &[]), "");
    check(
        &json!({"replicas": 1}),
        &["web-0", "web-00", "web-x", "other-1"],
        expect![""],
    );
    check(
        &json!({"replicas": 1}),
        &["web-0 bare"],
        expect![[r#"
        correct web-0 0
    "#]],
    );
}

fn claim(name: &str, meta: &Value) -> Arc<PersistentVolumeClaim> {
    let mut claim: Value = json!({"metadata": {"name": name, "uid": name}});
    for (field, value) in meta.as_object().unwrap() {
        claim["metadata"][field] = value.clone();
    }
    Arc::new(serde_json::from_value(claim).unwrap())
}

fn with_claims(retention: &Value, replicas: i32) -> StatefulSet {
    set(&json!({
        "replicas": replicas,
        "persistentVolumeClaimRetentionPolicy": retention,
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
    }))
}

const OF_SET: &str = r#"[{"apiVersion":"apps/v1","kind":"StatefulSet","name":"web","uid":"set","controller":true,"blockOwnerDeletion":true}]"#;

fn of_set() -> Value {
    json!({"ownerReferences": serde_json::from_str::<Value>(OF_SET).unwrap()})
}

#[test]
fn each_ordinal_has_claims_of_its_own() {
    let retain = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    let set = with_claims(&retain, 2);
    let mut told = steps(&set, &[], &[]);
    told += &steps(
        &set,
        &["web-0"],
        &[claim("data-web-0", &json!({})), claim("data-web-1", &json!({}))],
    );
    told += &steps(&set, &["web-0 pending"], &[]);
    let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    told += &steps(&set, &[], &[claim("data-web-0", &leaving)]);
    let stale =
        json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "before"}]});
    told += &steps(&set, &[], &[claim("data-web-0", &stale)]);
    expect![[r#"
        create web-0 web-new new +data-web-0
        create web-1 web-new new
        claims of web-0 +data-web-0
    "#]]
    .assert_eq(&told);
    let made = identity::pod(&set, &identity::spec(&set).template, "web-new", 0);
    expect![[r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"app":"web","apps.kubernetes.io/pod-index":"0","controller-revision-hash":"web-new","statefulset.kubernetes.io/pod-name":"web-0"},"name":"web-0","namespace":"default","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"StatefulSet","name":"web","uid":"set"}]},"spec":{"containers":[{"image":"new","name":"a"}],"hostname":"web-0","subdomain":"web","volumes":[{"name":"data","persistentVolumeClaim":{"claimName":"data-web-0"}}]}}"#]].assert_eq(&serde_json::to_string(&made).unwrap());
    assert!(identity::makes_claim(&set, "data-web-7"));
    assert!(!identity::makes_claim(&set, "data-web-x"));
}

#[test]
fn claims_go_with_whom_the_retention_policy_says() {
    let policy = |deleted: &str, scaled: &str| json!({"whenDeleted": deleted, "whenScaled": scaled});
    let both = |meta: &Value| [claim("data-web-0", meta), claim("data-web-1", meta)];
    let pods = ["web-0", "web-1"];
    let mut told = String::new();
    for (deleted, scaled) in [
        ("Retain", "Retain"),
        ("Delete", "Retain"),
        ("Retain", "Delete"),
        ("Delete", "Delete"),
    ] {
        told += &format!("deleted: {deleted}, scaled: {scaled}\n");
        told += &steps(
            &with_claims(&policy(deleted, scaled), 2),
            &pods,
            &both(&json!({})),
        );
        told += "scaled down, owned by the set before\n";
        told += &steps(&with_claims(&policy(deleted, scaled), 1), &pods, &both(&of_set()));
    }
    expect![[r#"
        deleted: Retain, scaled: Retain
        scaled down, owned by the set before
        own data-web-0:
        own data-web-1:
        delete web-1 Condemned
        deleted: Delete, scaled: Retain
        own data-web-0: StatefulSet/web
        own data-web-1: StatefulSet/web
        scaled down, owned by the set before
        delete web-1 Condemned
        deleted: Retain, scaled: Delete
        scaled down, owned by the set before
        own data-web-0:
        own data-web-1: Pod/web-1
        delete web-1 Condemned
        deleted: Delete, scaled: Delete
        own data-web-0: StatefulSet/web
        own data-web-1: StatefulSet/web
        scaled down, owned by the set before
        own data-web-1: Pod/web-1
        delete web-1 Condemned
    "#]]
    .assert_eq(&told);
    let foreign = json!({"ownerReferences": [{"apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x", "controller": true}]});
    assert_eq!(
        steps(
            &with_claims(&policy("Delete", "Delete"), 2),
            &pods,
            &both(&foreign)
        ),
        ""
    );
}

fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
    let of_image = set(&json!({"template": template(image)}));
    let mut revision = revisions::history(&of_image, &[]).update;
    revision.revision = number;
    Arc::new(revision)
}

/// The change and the numbers of the current and the update revision.
fn place(
    image: &str,
    current: Option<&Arc<ControllerRevision>>,
    known: &[Arc<ControllerRevision>],
) -> String {
    let mut set = set(&json!({"template": template(image)}));
    let name = current.and_then(|current| current.metadata.name.clone());
    set.status.get_or_insert_default().current_revision = name;
    let history = revisions::history(&set, known);
    format!(
        "{:?} {} {}",
        history.change, history.current.revision, history.update.revision
    )
}

#[test]
fn an_old_template_takes_its_old_revision_up_again() {
    let (one, two) = (revision("one", 1), revision("two", 2));
    assert_eq!(place("one", None, &[]), "Create 1 1");
    assert_eq!(place("one", Some(&one), std::slice::from_ref(&one)), "None 1 1");
    assert_eq!(place("two", Some(&one), std::slice::from_ref(&one)), "Create 1 2");
    assert_eq!(place("two", Some(&one), &[one.clone(), two.clone()]), "None 1 2");
    assert_eq!(
        place("one", Some(&two), &[one.clone(), two.clone()]),
        "Renumber 2 3"
    );
    let kept = revisions::template(&one).unwrap();
    assert_eq!(serde_json::to_value(kept).unwrap(), template("one"));
    assert_ne!(one.metadata.name, two.metadata.name);
}

#[test]
fn revisions_beyond_the_limit_are_forgotten_unless_a_pod_is_of_one() {
    let known: Vec<_> = ["a", "b", "c", "d"]
        .into_iter()
        .zip(1..)
        .map(|(image, number)| revision(image, number))
        .collect();
    let names = |limit: i32, pods: &[Arc<Pod>]| {
        let set = set(&json!({"template": template("d"), "revisionHistoryLimit": limit}));
        let history = revisions::history(&set, &known);
        let surplus = revisions::surplus(&set, &known, &history, pods);
        surplus
            .iter()
            .map(|revision| revision.revision)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(10, &[]), [0; 0]);
    assert_eq!(names(1, &[]), [1, 2]);
    let mut of_first = (*pod("web-0")).clone();
    of_first.metadata.labels.as_mut().unwrap().insert(
        identity::REVISION_LABEL.to_owned(),
        known[0].metadata.name.clone().unwrap(),
    );
    assert_eq!(names(0, &[Arc::new(of_first)]), [2, 3]);
}

#[test]
fn the_status_counts_and_tells_when_the_update_is_complete() {
    let told = |pods: &[&str]| {
        let pods: Vec<Arc<Pod>> = pods.iter().map(|words| pod(words)).collect();
        let now = Timestamp::from_second(NOW).unwrap();
        let set = set(&json!({"minReadySeconds": 30}));
        let (status, recheck) = status::observe(&set, &pods, REVISIONS, now);
        format!(
            "{} replicas, {:?} ready, {:?} available, {:?} current {}, {:?} updated {}, again {recheck:?}\n",
            status.replicas,
            status.ready_replicas,
            status.available_replicas,
            status.current_replicas,
            status.current_revision.unwrap(),
            status.updated_replicas,
            status.update_revision.unwrap(),
        )
    };
    let all = told(&["web-0 old", "web-1 since=990", "web-2 deleting"])
        + &told(&["web-0", "web-1", "web-2"])
        + &told(&["web-0", "web-1", "web-2 unready"]);
    expect![[r#"
        3 replicas, Some(3) ready, Some(2) available, Some(1) current web-old, Some(1) updated web-new, again Some(20s)
        3 replicas, Some(3) ready, Some(3) available, Some(3) current web-new, Some(3) updated web-new, again None
        3 replicas, Some(2) ready, Some(2) available, None current web-old, Some(3) updated web-new, again None
    "#]].assert_eq(&all);
}
