//! Rollouts as data: a line says what is there, the answer says what happens next.

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::plan::{Observed, Plan, Step, plan};
use super::size::{self, Bounds, wanted};
use super::template::new_set;
use super::{annotations, status};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// `replicas +surge -unavailable`, and `recreate` or `paused`.
fn deployment(words: &str, image: &str) -> Deployment {
    let mut replicas = 0;
    let (mut surge, mut unavailable) = ("0".to_owned(), "0".to_owned());
    let (mut strategy, mut paused) = ("RollingUpdate", false);
    for word in words.split_whitespace() {
        match word {
            "recreate" => strategy = "Recreate",
            "paused" => paused = true,
            _ if word.starts_with('+') => surge = word[1..].to_owned(),
            _ if word.starts_with('-') => unavailable = word[1..].to_owned(),
            _ => replicas = word.parse().unwrap(),
        }
    }
    let number = |text: String| {
        text.parse::<i32>()
            .map_or_else(|_| json!(text), |number| json!(number))
    };
    let rolling = json!({"maxSurge": number(surge), "maxUnavailable": number(unavailable)});
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas,
            "paused": paused,
            "strategy": {"type": strategy, "rollingUpdate": if strategy == "Recreate" { json!(null) } else { rolling }},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    }))
    .unwrap()
}

/// `name wanted/available`, `*` behind the name for the current template, `was N` when it was scaled for N replicas.
fn set(words: &str, deployment: &Deployment, age: i64) -> ReplicaSet {
    let words: Vec<&str> = words.split_whitespace().collect();
    let name = words[0].trim_end_matches('*');
    let mut of = deployment.clone();
    if !words[0].ends_with('*') {
        of.spec
            .as_mut()
            .unwrap()
            .template
            .spec
            .as_mut()
            .unwrap()
            .containers[0]
            .image = Some(name.to_owned());
    }
    let mut set = new_set(&of, None);
    let (wanted, available) = words[1].split_once('/').unwrap();
    let mut bounds = Bounds::of(deployment);
    if let Some(was) = words.iter().position(|word| *word == "was") {
        bounds.replicas = words[was + 1].parse().unwrap();
    }
    annotations::set_sizes(&mut set, bounds);
    annotations::inherit(&mut set, deployment, age);
    set.metadata.name = Some(name.to_owned());
    set.metadata.creation_timestamp = Some(Time(at(age)));
    set.spec.as_mut().unwrap().replicas = Some(wanted.parse().unwrap());
    set.status = Some(ReplicaSetStatus {
        replicas: wanted.parse().unwrap(),
        ready_replicas: Some(available.parse().unwrap()),
        available_replicas: Some(available.parse().unwrap()),
        ..ReplicaSetStatus::default()
    });
    set
}

/// `deployment; set; set …`
fn planned(scenario: &str, old_pods_run: bool) -> Plan {
    let mut parts = scenario.split(';').map(str::trim);
    let deployment = deployment(parts.next().unwrap(), "now");
    let sets = parts
        .zip(1..)
        .map(|(words, age)| set(words, &deployment, age))
        .collect();
    plan(Observed {
        deployment: &deployment,
        sets,
        old_pods_run,
        now: at(100),
    })
}

fn told(plan: &Plan) -> String {
    let name = |set: &ReplicaSet| set.metadata.name.clone().unwrap();
    let steps = plan.steps.iter().map(|step| match step {
        Step::Create(set) => format!("create {}", wanted(set)),
        Step::Update { set, from } if *from == wanted(set) => format!("annotate {}", name(set)),
        Step::Update { set, from } => format!("{} {from}→{}", name(set), wanted(set)),
        Step::Delete(set) => format!("delete {}", name(set)),
    });
    let steps: Vec<String> = steps.collect();
    if steps.is_empty() {
        "nothing".to_owned()
    } else {
        steps.join(", ")
    }
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes values")]
fn check(scenario: &str, expected: Expect) {
    expected.assert_eq(&told(&planned(scenario, false)));
}

#[test]
fn a_new_deployment_gets_its_set_whole() {
    check("3 +1 -0", expect!["create 3"]);
    check("3 recreate", expect!["create 3"]);
    check("3 +1 -0; a* 3/0", expect!["nothing"]);
}

#[test]
fn a_new_template_starts_within_the_surge() {
    check("10 +3 -2; a 10/10", expect!["create 3, a 10→8"]);
    check("10 +0 -2; a 10/10", expect!["create 0, a 10→8"]);
    check("4 +25% -25%; a 4/4", expect!["create 1, a 4→3"]);
    check("4 +1 -0; a 4/4", expect!["create 1"]);
}

#[test]
fn old_replicas_go_as_far_as_availability_allows() {
    check("10 +3 -2; a 10/10; b* 3/0", expect!["a 10→8"]);
    check("10 +3 -2; a 8/8; b* 5/0", expect!["nothing"]);
    check("10 +3 -2; a 8/8; b* 5/3", expect!["a 8→5"]);
    check("10 +3 -2; a 5/5; b* 5/5", expect!["b 5→8"]);
    check("10 +0 -2; a 10/10; b* 0/0", expect!["a 10→8"]);
}

#[test]
fn a_status_that_lags_behind_a_scale_down_counts_no_pod_twice() {
    check("10 +3 -2; a 8/10; b* 5/1", expect!["a 8→7"]);
}

#[test]
fn unhealthy_replicas_go_first_and_cost_nothing() {
    check("10 +3 -2; a 10/4; b* 3/0", expect!["a 10→8"]);
    check("5 +5 -0; a 4/0; b 5/5; c* 5/0", expect!["a 4→0"]);
}

#[test]
fn the_older_of_two_old_sets_goes_first() {
    check("6 +2 -2; a 3/3; b 3/3; c* 2/0", expect!["a 3→1"]);
    check("6 +2 -2; a 3/3; b 3/3; c* 2/2", expect!["a 3→0, b 3→2"]);
}

#[test]
fn bounds_that_round_to_nothing_still_let_one_go() {
    check("3 +0% -10%; a 3/3; b* 0/0", expect!["a 3→2"]);
}

#[test]
fn recreate_waits_for_the_old_pods() {
    check("3 recreate; a 3/3", expect!["a 3→0"]);
    assert_eq!(told(&planned("3 recreate; a 0/0", true)), "nothing");
    check("3 recreate; a 0/0", expect!["create 3"]);
}

#[test]
fn a_scaled_deployment_gives_each_revision_its_share() {
    check("10 +0 -0; a* 5/5 was 5", expect!["a 5→10"]);
    check("20 +0 -0; a 8/8 was 10; b* 2/2 was 10", expect!["a 8→16, b 2→4"]);
    check("5 +0 -0; a 8/8 was 10; b* 2/2 was 10", expect!["a 8→4, b 2→1"]);
    check("0 +2 -0; a 8/8 was 10; b* 2/2 was 10", expect!["a 8→0, b 2→0"]);
    check("15 +3 -2; a 8/8 was 10; b* 5/3 was 10", expect!["a 8→11, b 5→7"]);
}

#[test]
fn a_paused_deployment_scales_and_does_nothing_else() {
    check("3 +1 -1 paused; a 3/3", expect!["nothing"]);
    check("5 +1 -1 paused; a 3/3 was 3", expect!["a 3→5"]);
}

#[test]
fn going_back_numbers_the_old_set_anew() {
    let plan = planned("3 +1 -1; a* 0/0; b 3/3", false);
    let Some(Step::Update { set, .. }) = plan.steps.first() else {
        panic!("{plan:?}")
    };
    assert_eq!(annotations::get(&set.metadata, annotations::REVISION), Some("3"));
    assert_eq!(plan.revision.as_deref(), Some("3"));
}

/// Plays a rollout to its end, pods becoming available one at a time.
fn play(replicas: i32, surge: i32, unavailable: i32) {
    let deployment = deployment(&format!("{replicas} +{surge} -{unavailable}"), "now");
    let bounds = Bounds::of(&deployment);
    let mut sets = vec![set(&format!("old {replicas}/{replicas}"), &deployment, 1)];
    for _ in 0..1000 {
        let plan = plan(Observed {
            deployment: &deployment,
            sets: sets.clone(),
            old_pods_run: false,
            now: at(100),
        });
        for step in plan.steps {
            match step {
                Step::Create(mut set) => {
                    set.metadata.creation_timestamp = Some(Time(at(2)));
                    sets.push(set);
                }
                Step::Update { set, .. } => {
                    let found = sets
                        .iter_mut()
                        .find(|found| found.metadata.name == set.metadata.name)
                        .unwrap();
                    found.metadata = set.metadata;
                    found.spec = set.spec;
                }
                Step::Delete(set) => sets.retain(|found| found.metadata.name != set.metadata.name),
            }
        }
        let total: i32 = sets.iter().map(wanted).sum();
        let available: i32 = sets.iter().map(size::available).sum();
        assert!(total <= bounds.total_max(), "{total} of {bounds:?}");
        assert!(available >= bounds.available_min(), "{available} of {bounds:?}");
        let Some(waiting) = sets.iter_mut().find(|set| size::available(set) < wanted(set)) else {
            if sets.len() == 2 && wanted(&sets[1]) == replicas && wanted(&sets[0]) == 0 {
                return;
            }
            continue;
        };
        let (replicas, available) = (wanted(waiting), size::available(waiting) + 1);
        let status = waiting.status.get_or_insert_default();
        (status.replicas, status.available_replicas) = (replicas, Some(available));
    }
    panic!("a rollout of {bounds:?} never ends");
}

#[test]
fn every_rollout_ends_and_keeps_its_bounds() {
    for replicas in 1..=7 {
        for surge in 0..=3 {
            for unavailable in 0..=3 {
                play(replicas, surge, unavailable);
            }
        }
    }
}

fn conditions(deployment: &Deployment) -> String {
    let conditions = deployment
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let text = conditions.iter().map(|condition| {
        let message = condition.message.clone().unwrap_or_default();
        format!(
            "{} {} {}: {message}\n",
            condition.type_,
            condition.status,
            condition.reason.clone().unwrap_or_default()
        )
    });
    text.collect()
}

#[test]
fn a_rollout_tells_how_it_gets_on() {
    let mut web = deployment("2 +1 -0", "now");
    let mut told = String::new();
    for (words, second) in [("b* 2/0", 0), ("b* 2/1", 10), ("b* 2/1", 611), ("b* 2/2", 700)] {
        let sets = vec![set(words, &web, 1)];
        let plan = plan(Observed {
            deployment: &web,
            sets,
            old_pods_run: false,
            now: at(second),
        });
        web.status = Some(plan.status);
        told += &format!("{words} at {second}\n{}", conditions(&web));
    }
    expect![[r#"
        b* 2/0 at 0
        Available False MinimumReplicasUnavailable: Deployment does not have minimum availability.
        Progressing True ReplicaSetUpdated: ReplicaSet "b" is progressing.
        b* 2/1 at 10
        Available False MinimumReplicasUnavailable: Deployment does not have minimum availability.
        Progressing True ReplicaSetUpdated: ReplicaSet "b" is progressing.
        b* 2/1 at 611
        Available False MinimumReplicasUnavailable: Deployment does not have minimum availability.
        Progressing False ProgressDeadlineExceeded: ReplicaSet "b" has timed out progressing.
        b* 2/2 at 700
        Available True MinimumReplicasAvailable: Deployment has minimum availability.
        Progressing True NewReplicaSetAvailable: ReplicaSet "b" has successfully progressed.
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_rollout_that_stands_still_is_looked_at_when_it_is_late() {
    let plan = planned("2 +1 -0; b* 2/1", false);
    assert_eq!(plan.recheck, Some(std::time::Duration::from_secs(601)));
    assert!(status::condition(&plan.status, status::PROGRESSING).is_some());
}
