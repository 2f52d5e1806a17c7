//! Stories of single pods: what is decided at each moment.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ContainerState;

use super::*;
use crate::history::{Run, Stop};

/// A pod driven through time by a short script; the test reads what was decided.
struct Story {
    pod: Pod,
    history: History,
    status: PodStatus,
    now: Timestamp,
}

impl Story {
    fn of(spec: &str) -> Self {
        let meta = r#"{"name":"web-x","namespace":"default","uid":"uid","generation":3}"#;
        let pod = serde_json::from_str(&format!(r#"{{"metadata":{meta},"spec":{spec}}}"#)).unwrap();
        let now = Timestamp::from_second(1_000_000).unwrap();
        let history = History {
            started_at: Some(now),
            ..History::default()
        };
        let mut story = Story {
            pod,
            history,
            status: PodStatus::default(),
            now,
        };
        story.plan();
        story
    }

    fn plan(&mut self) -> Plan {
        let plan = plan(&View {
            pod: &self.pod,
            history: &self.history,
            previous: &self.status,
            host_addresses: &["10.0.0.1".parse().unwrap()],
            now: self.now,
        });
        self.status = plan.status.clone();
        plan
    }

    fn steps(&mut self) -> String {
        let name = |step: &Step| match step {
            Step::FindImage { container } => format!("find {container}"),
            Step::MakeSandbox => "sandbox".to_owned(),
            Step::Start { container, attempt } => format!("start {container}-{attempt}"),
            Step::Signal {
                container, signal, ..
            } => format!("signal {container} {signal}"),
            Step::PreStop { container, .. } => format!("hook {container}"),
            Step::Kill { container, .. } => format!("kill {container}"),
            Step::Resize => "resize".to_owned(),
            Step::RemoveSandbox => "remove".to_owned(),
            Step::SetUpVolumes => "volumes".to_owned(),
            Step::RemoveVolumes => "remove volumes".to_owned(),
        };
        let plan = self.plan();
        let mut words: Vec<String> = plan.steps.iter().map(name).collect();
        if let (true, Some(at)) = (words.is_empty(), plan.look_again_at) {
            words.push(format!("wait {}", at.as_second() - self.now.as_second()));
        }
        if plan.is_gone {
            words.push("gone".to_owned());
        }
        words.join(", ")
    }

    /// Sandbox and images are there.
    fn prepared(spec: &str) -> Self {
        let mut story = Self::of(spec);
        story
            .history
            .sandbox_ready(&story.pod, vec!["10.42.1.2".parse().unwrap()]);
        story.find_images();
        story
    }

    fn find_images(&mut self) {
        let ephemeral = rules::ephemeral(&self.pod);
        let ordinary = rules::containers(&self.pod).map(|(_, c)| c);
        let names: Vec<String> = ordinary.chain(&ephemeral).map(|c| c.name.clone()).collect();
        for name in names {
            self.history.container_mut(&name).image_found();
        }
    }

    fn start(&mut self, name: &str) {
        let run = self.next_run(name);
        self.history.container_mut(name).started(run);
    }

    fn next_run(&self, name: &str) -> Run {
        Run {
            id: format!("{name}-{}", self.history.container(name).attempts),
            started_at: self.now,
            image: "docker.io/library/i:latest".to_owned(),
            image_id: "sha256:1".to_owned(),
            stop_signal: None,
            finished: None,
            started_with: Default::default(),
        }
    }

    fn exit(&mut self, name: &str, code: i32) {
        let id = self.history.container(name).run.unwrap().id;
        assert!(
            self.history
                .container_mut(name)
                .exited(&id, code, false, self.now)
        );
        self.find_images();
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn delete(&mut self, grace: i64) {
        self.pod.metadata.deletion_timestamp = Some(self.now.into());
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
    }

    fn signalled(&mut self, name: &str, stop: Stop) {
        self.history.stopping_since.get_or_insert(self.now);
        self.history.container_mut(name).stop = Some(stop);
    }

    fn phase(&mut self) -> String {
        self.plan();
        self.status.phase.clone().unwrap()
    }

    fn state(&mut self, name: &str) -> String {
        self.plan();
        let all = self
            .status
            .init_container_statuses
            .iter()
            .chain(&self.status.container_statuses)
            .flatten();
        let status = all
            .into_iter()
            .find(|status| status.name == name)
            .unwrap()
            .clone();
        let last = status
            .last_state
            .map(|last| format!(" last:{}", word(&last)))
            .unwrap_or_default();
        let ready = if status.ready { " ready" } else { "" };
        format!(
            "{}{last} restarts:{}{ready}",
            word(&status.state.unwrap()),
            status.restart_count
        )
    }

    fn condition(&mut self, type_: &str) -> String {
        self.plan();
        let conditions = self.status.conditions.as_ref().unwrap();
        let found = conditions
            .iter()
            .find(|condition| condition.type_ == type_)
            .unwrap();
        let since = found.last_transition_time.as_ref().unwrap().0.as_second() - 1_000_000;
        format!(
            "{} {} @{since}",
            found.status,
            found.reason.as_deref().unwrap_or("-")
        )
    }
}

fn word(state: &ContainerState) -> String {
    if let Some(waiting) = &state.waiting {
        return waiting.reason.clone().unwrap();
    }
    match &state.terminated {
        Some(ended) => format!("{}({})", ended.reason.clone().unwrap(), ended.exit_code),
        None => "Running".to_owned(),
    }
}

const ONE: &str = r#"{"containers":[{"name":"web","image":"i"}]}"#;
const ONE_NEVER: &str = r#"{"restartPolicy":"Never","containers":[{"name":"web","image":"i"}]}"#;
const ONE_ON_FAILURE: &str = r#"{"restartPolicy":"OnFailure","containers":[{"name":"web","image":"i"}]}"#;
const TWO: &str = r#"{"containers":[{"name":"web","image":"i"},{"name":"log","image":"j"}]}"#;
const INIT: &str = r#"{"initContainers":[{"name":"a","image":"i"},{"name":"b","image":"i"}],
    "containers":[{"name":"web","image":"i"}]}"#;
const SIDE: &str = r#"{"restartPolicy":"Never","initContainers":[{"name":"side","image":"i","restartPolicy":"Always"}],
    "containers":[{"name":"job","image":"i"}]}"#;

#[test]
fn sandbox_and_images_come_first_and_together() {
    let mut story = Story::of(TWO);
    assert_eq!(story.steps(), "sandbox, find web, find log");
    assert_eq!(story.state("web"), "ContainerCreating restarts:0");
    assert_eq!(story.phase(), "Pending");
    story.find_images();
    assert_eq!(story.steps(), "sandbox");
}

#[test]
fn containers_start_in_order_and_the_pod_runs() {
    let mut story = Story::prepared(TWO);
    assert_eq!(story.steps(), "start web-0, start log-0");
    story.start("web");
    assert_eq!(story.phase(), "Pending");
    story.start("log");
    assert_eq!((story.steps().as_str(), story.phase().as_str()), ("", "Running"));
    assert_eq!(story.state("web"), "Running restarts:0 ready");
    assert_eq!(story.condition("Ready"), "True - @0");
}

#[test]
fn status_names_addresses_class_generation_and_ids() {
    let mut story = Story::prepared(ONE);
    story.start("web");
    story.plan();
    let status = &story.status;
    assert_eq!(
        (status.pod_ip.as_deref(), status.host_ip.as_deref()),
        (Some("10.42.1.2"), Some("10.0.0.1"))
    );
    assert_eq!(
        (status.qos_class.as_deref(), status.observed_generation),
        (Some("BestEffort"), Some(3))
    );
    let web = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(web.container_id.as_deref(), Some("flotilla://uid_web-0"));
    assert_eq!(
        (web.image.as_str(), web.image_id.as_str()),
        ("docker.io/library/i:latest", "sha256:1")
    );
}

#[test]
fn a_crashing_container_restarts_at_once_and_then_backs_off() {
    let mut story = Story::prepared(ONE);
    story.start("web");
    story.exit("web", 1);
    assert_eq!(story.steps(), "start web-1");
    assert_eq!(story.state("web"), "Error(1) restarts:0");
    story.start("web");
    story.pass(2);
    story.exit("web", 2);
    assert_eq!(story.steps(), "wait 10");
    assert_eq!(story.state("web"), "CrashLoopBackOff last:Error(2) restarts:1");
    let web = story.status.container_statuses.as_ref().unwrap()[0].clone();
    let message = web.state.unwrap().waiting.unwrap().message.unwrap();
    assert_eq!(
        message,
        "back-off 10s restarting failed container=web pod=web-x_default(uid)"
    );
    assert_eq!(story.phase(), "Running");
    story.pass(10);
    assert_eq!(story.steps(), "start web-2");
    story.start("web");
    assert_eq!(story.state("web"), "Running last:Error(2) restarts:2 ready");
    story.exit("web", 0);
    assert_eq!(story.steps(), "wait 20");
}

#[test]
fn a_neighbour_that_crashes_does_not_stop_the_other() {
    let mut story = Story::prepared(TWO);
    story.start("web");
    story.start("log");
    story.exit("log", 1);
    story.start("log");
    story.exit("log", 1);
    assert_eq!(story.steps(), "wait 10");
    assert_eq!(story.state("web"), "Running restarts:0 ready");
    assert_eq!(
        (story.phase().as_str(), story.condition("Ready").as_str()),
        ("Running", "False ContainersNotReady @0")
    );
}

#[test]
fn never_means_never() {
    let mut story = Story::prepared(ONE_NEVER);
    story.start("web");
    story.exit("web", 3);
    assert_eq!(
        (story.steps().as_str(), story.phase().as_str()),
        ("remove", "Failed")
    );
    assert_eq!(story.condition("Ready"), "False PodFailed @0");
    story.history.sandbox = Sandbox::Removed;
    assert_eq!(story.steps(), "");
    assert_eq!(story.state("web"), "Error(3) restarts:0");
}

#[test]
fn on_failure_ends_with_success() {
    let mut story = Story::prepared(ONE_ON_FAILURE);
    story.start("web");
    story.exit("web", 3);
    assert_eq!(story.steps(), "start web-1");
    story.start("web");
    story.exit("web", 0);
    assert_eq!(
        (story.steps().as_str(), story.phase().as_str()),
        ("remove", "Succeeded")
    );
    assert_eq!(story.condition("Ready"), "False PodCompleted @0");
    assert_eq!(story.condition("Initialized"), "True PodCompleted @0");
}

#[test]
fn what_cannot_be_started_is_shown_and_then_backs_off() {
    let mut story = Story::prepared(ONE);
    let run = story.next_run("web");
    story
        .history
        .container_mut("web")
        .start_failed(run, "no such file".to_owned());
    assert_eq!(story.steps(), "wait 1");
    assert_eq!(
        story.state("web"),
        "RunContainerError last:StartError(128) restarts:0"
    );
    story.pass(1);
    story.find_images();
    assert_eq!(story.steps(), "start web-1");
    let run = story.next_run("web");
    story
        .history
        .container_mut("web")
        .start_failed(run, "no such file".to_owned());
    story.pass(1);
    assert_eq!(
        story.state("web"),
        "CrashLoopBackOff last:StartError(128) restarts:1"
    );
    assert_eq!(story.steps(), "wait 9");
}

#[test]
fn a_start_error_ends_a_pod_that_never_restarts() {
    let mut story = Story::prepared(ONE_NEVER);
    let run = story.next_run("web");
    story
        .history
        .container_mut("web")
        .start_failed(run, "no such file".to_owned());
    assert_eq!(
        (story.state("web").as_str(), story.phase().as_str()),
        ("StartError(128) restarts:0", "Failed")
    );
}

#[test]
fn missing_images_are_looked_for_ever_more_rarely() {
    let mut story = Story::prepared(ONE);
    let now = story.now;
    story
        .history
        .container_mut("web")
        .image_missing("ErrImagePull", "nowhere".to_owned(), now);
    assert_eq!(
        (story.steps().as_str(), story.state("web").as_str()),
        ("wait 1", "ErrImagePull restarts:0")
    );
    story.pass(1);
    assert_eq!(
        (story.steps().as_str(), story.state("web").as_str()),
        ("wait 9", "ImagePullBackOff restarts:0")
    );
    story.pass(9);
    assert_eq!(story.steps(), "find web");
    let now = story.now;
    story
        .history
        .container_mut("web")
        .image_missing("ErrImagePull", "nowhere".to_owned(), now);
    story.pass(1);
    assert_eq!(story.steps(), "wait 19");
    let web = story.status.container_statuses.as_ref().unwrap()[0].clone();
    let message = web.state.unwrap().waiting.unwrap().message.unwrap();
    assert_eq!(message, "Back-off pulling image \"i\": ErrImagePull: nowhere");
}

#[test]
fn a_pull_keeps_its_back_off_and_is_begun_anew_by_the_next_agent() {
    let mut story = Story::prepared(ONE);
    let now = story.now;
    let web = |story: &mut Story| story.history.container_mut("web").clone();
    story
        .history
        .container_mut("web")
        .image_missing("ErrImagePull", "nowhere".to_owned(), now);
    story.history.container_mut("web").image_pulling();
    assert_eq!(
        (story.steps().as_str(), story.state("web").as_str()),
        ("", "ContainerCreating restarts:0")
    );
    story
        .history
        .container_mut("web")
        .image_missing("ErrImagePull", "nowhere".to_owned(), now);
    assert!(matches!(
        web(&mut story).image,
        ImageState::Missing { wait_seconds: 20, .. }
    ));
    story.history.container_mut("web").image_pulling();
    story.history.taken_over(&story.pod);
    assert_eq!(story.steps(), "find web");
}

#[test]
fn a_container_that_cannot_be_created_waits_for_better_input() {
    let mut story = Story::prepared(ONE);
    let now = story.now;
    story
        .history
        .container_mut("web")
        .troubled("CreateContainerConfigError", "no map".to_owned(), now);
    assert_eq!(story.steps(), "wait 10");
    assert_eq!(story.state("web"), "CreateContainerConfigError restarts:0");
    story.history.inputs_changed();
    assert_eq!(story.steps(), "start web-0");
}

#[test]
fn init_containers_run_one_after_another() {
    let mut story = Story::prepared(INIT);
    assert_eq!(story.steps(), "start a-0");
    assert_eq!(story.state("web"), "PodInitializing restarts:0");
    story.start("a");
    assert_eq!(story.steps(), "");
    story.exit("a", 0);
    assert_eq!(story.state("a"), "Completed(0) restarts:0 ready");
    assert_eq!(story.steps(), "start b-0");
    assert_eq!(
        story.condition("Initialized"),
        "False ContainersNotInitialized @0"
    );
    story.start("b");
    story.exit("b", 1);
    assert_eq!(story.steps(), "start b-1");
    story.start("b");
    story.pass(5);
    story.exit("b", 0);
    assert_eq!(
        (story.steps().as_str(), story.phase().as_str()),
        ("start web-0", "Pending")
    );
    assert_eq!(story.condition("Initialized"), "True - @5");
    story.start("web");
    assert_eq!(story.phase(), "Running");
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let mut story = Story::prepared(&INIT.replacen('{', r#"{"restartPolicy":"Never","#, 1));
    story.start("a");
    story.exit("a", 1);
    assert_eq!(
        (story.steps().as_str(), story.phase().as_str()),
        ("remove", "Failed")
    );
}

#[test]
fn a_sidecar_runs_beside_the_job_and_ends_after_it() {
    let mut story = Story::prepared(SIDE);
    assert_eq!(story.steps(), "start side-0");
    story.start("side");
    assert_eq!(story.steps(), "start job-0");
    story.start("job");
    story.exit("side", 1);
    assert_eq!(story.steps(), "start side-1");
    story.start("side");
    story.exit("job", 0);
    assert_eq!(
        (story.steps().as_str(), story.phase().as_str()),
        ("signal side 15", "Succeeded")
    );
    story.signalled("side", Stop::Asked);
    story.exit("side", 0);
    assert_eq!(story.steps(), "remove");
}

#[test]
fn deletion_asks_then_kills_then_removes() {
    let mut story = Story::prepared(TWO);
    story.start("web");
    story.start("log");
    story.delete(30);
    assert_eq!(story.steps(), "signal web 15, signal log 15");
    story.signalled("web", Stop::Asked);
    story.signalled("log", Stop::Asked);
    assert_eq!(story.steps(), "wait 30");
    story.exit("log", 143);
    story.pass(30);
    assert_eq!(story.steps(), "kill web");
    story.signalled("web", Stop::Killed);
    assert_eq!(story.steps(), "");
    story.exit("web", 137);
    assert_eq!(
        (story.steps().as_str(), story.phase().as_str()),
        ("remove", "Failed")
    );
    story.history.sandbox = Sandbox::Removed;
    assert_eq!(story.steps(), "gone");
}

#[test]
fn a_shorter_grace_overtakes_a_longer_one() {
    let mut story = Story::prepared(ONE);
    story.start("web");
    story.delete(30);
    story.signalled("web", Stop::Asked);
    story.pass(2);
    story.delete(1);
    assert_eq!(story.steps(), "kill web");
}

#[test]
fn sidecars_stop_last_and_share_the_grace() {
    let mut story = Story::prepared(SIDE);
    story.start("side");
    story.start("job");
    story.delete(10);
    assert_eq!(story.steps(), "signal job 15");
    story.signalled("job", Stop::Asked);
    story.pass(4);
    story.exit("job", 143);
    assert_eq!(story.steps(), "signal side 15");
    story.signalled("side", Stop::Asked);
    assert_eq!(story.steps(), "wait 6");
}

#[test]
fn an_object_that_vanished_ends_without_grace() {
    let mut story = Story::prepared(ONE);
    story.start("web");
    story.history.removed = true;
    assert_eq!(story.steps(), "kill web");
}

#[test]
fn a_pod_that_never_started_is_gone_at_once() {
    let mut story = Story::of(ONE);
    story.delete(30);
    assert_eq!(story.steps(), "gone");
}

#[test]
fn the_pods_stop_signal_wins() {
    let mut story = Story::prepared(
        r#"{"containers":[{"name":"web","image":"i","lifecycle":{"stopSignal":"SIGUSR1"}},{"name":"b","image":"i"}]}"#,
    );
    story.start("web");
    story.start("b");
    story.history.container_mut("b").run.as_mut().unwrap().stop_signal = Some("SIGQUIT".to_owned());
    story.delete(5);
    assert_eq!(story.steps(), "signal web 10, signal b 3");
}

#[test]
fn a_lost_sandbox_is_made_again_and_restarts_count_up() {
    let mut story = Story::prepared(INIT);
    for name in ["a", "b"] {
        story.start(name);
        story.exit(name, 0);
    }
    story.start("web");
    story.plan();
    let now = story.now;
    story.history.sandbox_lost(now);
    assert_eq!(story.state("web"), "ContainerStatusUnknown(137) restarts:0");
    assert!(story.steps().starts_with("sandbox"));
    story.history.sandbox_ready(&story.pod, vec![]);
    story.find_images();
    assert_eq!(story.steps(), "start a-1");
    for name in ["a", "b"] {
        story.start(name);
        story.exit(name, 0);
    }
    assert_eq!(story.steps(), "start web-1");
    story.start("web");
    assert_eq!(
        story.state("web"),
        "Running last:ContainerStatusUnknown(137) restarts:1 ready"
    );
}

#[test]
fn a_lost_sandbox_ends_a_pod_that_never_restarts() {
    let mut story = Story::prepared(ONE_NEVER);
    story.start("web");
    let now = story.now;
    story.history.sandbox_lost(now);
    assert_eq!(
        (story.steps().as_str(), story.phase().as_str()),
        ("remove", "Failed")
    );
}

#[test]
fn a_sandbox_that_fails_is_tried_again_later() {
    let mut story = Story::of(ONE);
    story.find_images();
    let now = story.now;
    for wait in [1, 2, 4, 8, 10, 10] {
        story.history.sandbox_failed("no bridge".to_owned(), now);
        assert_eq!(story.steps(), format!("wait {wait}"));
    }
    story.pass(10);
    assert_eq!(story.steps(), "sandbox");
}

#[test]
fn the_deadline_fails_the_pod() {
    let mut story = Story::prepared(&ONE.replacen('{', r#"{"activeDeadlineSeconds":60,"#, 1));
    story.start("web");
    assert_eq!(story.steps(), "wait 60");
    story.pass(60);
    assert_eq!(
        (story.steps().as_str(), story.phase().as_str()),
        ("signal web 15", "Failed")
    );
    assert_eq!(story.status.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn transition_times_change_only_with_the_status() {
    let mut story = Story::prepared(ONE);
    assert_eq!(story.condition("Ready"), "False ContainersNotReady @0");
    story.pass(3);
    story.start("web");
    assert_eq!(story.condition("Ready"), "True - @3");
    story.pass(4);
    assert_eq!(story.condition("Ready"), "True - @3");
    story.exit("web", 1);
    assert_eq!(story.condition("Ready"), "False ContainersNotReady @7");
    assert_eq!(story.condition("PodReadyToStartContainers"), "True - @0");
}

#[test]
fn readiness_gates_hold_the_pod_back() {
    let mut story = Story::prepared(&ONE.replacen('{', r#"{"readinessGates":[{"conditionType":"x/y"}],"#, 1));
    story.start("web");
    assert_eq!(story.condition("Ready"), "False ReadinessGatesNotReady @0");
    assert_eq!(story.condition("ContainersReady"), "True - @0");
    let gate = r#"{"conditions":[{"type":"x/y","status":"True"}]}"#;
    story.pod.status = Some(serde_json::from_str(gate).unwrap());
    assert_eq!(story.condition("Ready"), "True - @0");
    assert_eq!(
        story.status.conditions.as_ref().unwrap().last().unwrap().type_,
        "x/y"
    );
}

#[test]
fn news_of_an_old_attempt_changes_nothing() {
    let mut story = Story::prepared(ONE);
    story.start("web");
    story.exit("web", 1);
    story.start("web");
    let now = story.now;
    assert!(!story.history.container_mut("web").exited("web-0", 0, false, now));
    assert_eq!(story.state("web"), "Running last:Error(1) restarts:1 ready");
}

#[test]
fn being_out_of_memory_is_told() {
    let mut story = Story::prepared(ONE_NEVER);
    story.start("web");
    let now = story.now;
    story.history.container_mut("web").exited("web-0", 137, true, now);
    assert_eq!(story.state("web"), "OOMKilled(137) restarts:0");
}

#[test]
fn backing_off_is_told_once_per_turn() {
    let mut story = Story::prepared(ONE);
    story.start("web");
    story.exit("web", 1);
    story.start("web");
    story.plan();
    let before = story.status.clone();
    story.exit("web", 1);
    story.plan();
    let notices = crate::notices(&story.pod, &before, &story.status);
    let told: Vec<String> = notices
        .iter()
        .map(|n| format!("{} {} {}", n.reason, n.field_path, n.message))
        .collect();
    let expected =
        "BackOff spec.containers{web} Back-off restarting failed container web in pod web-x_default(uid)";
    assert_eq!(told, [expected]);
    assert_eq!(crate::notices(&story.pod, &story.status, &story.status), []);
}

#[test]
fn a_pod_that_was_over_before_is_left_as_it_is() {
    let mut story = Story::of(ONE);
    let over = r#"{"phase":"Failed","reason":"Evicted","containerStatuses":[]}"#;
    story.status = serde_json::from_str(over).unwrap();
    assert_eq!(story.steps(), "");
    assert_eq!(story.status, serde_json::from_str(over).unwrap());
    story.delete(30);
    assert_eq!(story.steps(), "gone");
}

#[test]
fn a_sidecar_that_crashes_in_a_second_sandbox_leaves_the_job_alone() {
    let mut story = Story::prepared(SIDE);
    let now = story.now;
    story.history.sandbox_lost(now);
    story.history.sandbox_ready(&story.pod, vec![]);
    for name in ["side", "job"] {
        story.start(name);
    }
    story.exit("side", 1);
    story.start("side");
    story.exit("side", 1);
    assert_eq!(
        (story.steps().as_str(), story.phase().as_str()),
        ("wait 10", "Running")
    );
}

const PROBED: &str = r#"{"containers":[{"name":"web","image":"i",
    "startupProbe":{"tcpSocket":{"port":1},"failureThreshold":2},
    "livenessProbe":{"tcpSocket":{"port":1},"failureThreshold":1,"terminationGracePeriodSeconds":5},
    "readinessProbe":{"tcpSocket":{"port":1},"failureThreshold":1}}]}"#;

impl Story {
    fn probe(&mut self, name: &str, kind: crate::ProbeKind, is_well: bool) -> String {
        let outcome = if is_well {
            crate::ProbeOutcome::Success
        } else {
            crate::ProbeOutcome::Failure("no".to_owned())
        };
        let id = self.history.container(name).run.unwrap().id;
        let notice = self.history.probed(&self.pod, name, &id, kind, &outcome);
        notice
            .map(|notice| format!("{} {}", notice.reason, notice.message))
            .unwrap_or_default()
    }

    /// `web:Readiness` for each probe that is to run.
    fn probes(&self) -> String {
        let wanted = crate::wanted_probes(&self.pod, &self.history, &[]);
        let names: Vec<String> = wanted
            .iter()
            .map(|probe| format!("{}:{}", probe.container, probe.kind.name()))
            .collect();
        names.join(" ")
    }

    fn hooks(&self) -> String {
        let wanted = crate::wanted_hooks(&self.pod, &self.history, &[]);
        let names: Vec<String> = wanted
            .iter()
            .map(|hook| format!("{}:{:?}", hook.container, hook.kind))
            .collect();
        names.join(" ")
    }

    /// Carries out the first step, which is one of a container's end; returns the event's message.
    fn stop(&mut self) -> String {
        let step = self.plan().steps.into_iter().next().unwrap();
        let (container, begin, stop) = match step {
            Step::PreStop { container, begin, .. } => (container, begin, Stop::Hook),
            Step::Signal { container, begin, .. } => (container, begin, Stop::Asked),
            Step::Kill { container, begin, .. } => (container, begin, Stop::Killed),
            other => panic!("{other:?}"),
        };
        self.history.stopped(&container, stop, begin.as_ref(), self.now);
        begin.map(|begin| begin.message).unwrap_or_default()
    }

    fn start_hooked(&mut self, name: &str) {
        self.start(name);
        let container = rules::find_container(&self.pod, name).unwrap();
        self.history.expect_post_start(&container);
    }
}

#[test]
fn the_startup_probe_holds_the_others_back() {
    use crate::ProbeKind::{Readiness, Startup};
    let mut story = Story::prepared(PROBED);
    assert_eq!(story.probes(), "");
    story.start("web");
    assert_eq!(story.probes(), "web:Startup");
    assert_eq!(
        story.probe("web", Startup, false),
        "Unhealthy Startup probe failed: no"
    );
    assert_eq!(story.state("web"), "Running restarts:0");
    story.probe("web", Startup, true);
    assert_eq!(story.probes(), "web:Liveness web:Readiness");
    assert_eq!(story.state("web"), "Running restarts:0");
    story.probe("web", Readiness, true);
    assert_eq!(story.state("web"), "Running restarts:0 ready");
    assert_eq!(story.condition("Ready"), "True - @0");
    story.probe("web", Readiness, false);
    assert_eq!(story.condition("Ready"), "False ContainersNotReady @0");
}

#[test]
fn a_failed_liveness_probe_restarts_the_container_in_the_probes_grace() {
    use crate::ProbeKind::{Liveness, Startup};
    let mut story = Story::prepared(PROBED);
    story.start("web");
    story.probe("web", Startup, true);
    story.probe("web", Liveness, false);
    assert_eq!(story.steps(), "signal web 15");
    assert_eq!(
        story.stop(),
        "Container web failed liveness probe, will be restarted"
    );
    assert_eq!(story.probes(), "");
    assert_eq!(story.steps(), "wait 5");
    story.pass(5);
    assert_eq!(story.steps(), "kill web");
    story.exit("web", 137);
    assert_eq!(story.steps(), "start web-1");
    story.start("web");
    assert_eq!(story.state("web"), "Running last:Error(137) restarts:1");
    assert_eq!(story.probes(), "web:Startup");
}

#[test]
fn an_unhealthy_container_restarts_whatever_its_exit_code_unless_never() {
    for (policy, message, steps) in [
        (
            "OnFailure",
            "Container web failed startup probe, will be restarted",
            "start web-1",
        ),
        ("Never", "Container web failed startup probe", "remove"),
    ] {
        let spec = PROBED.replacen('{', &format!(r#"{{"restartPolicy":"{policy}","#), 1);
        let mut story = Story::prepared(&spec);
        story.start("web");
        story.probe("web", crate::ProbeKind::Startup, false);
        story.probe("web", crate::ProbeKind::Startup, false);
        assert_eq!(story.stop(), message);
        story.exit("web", 0);
        assert_eq!(story.steps(), steps, "{policy}");
    }
}

#[test]
fn verdicts_outlive_the_agent_and_old_records_have_none() {
    let mut story = Story::prepared(PROBED);
    story.start("web");
    story.probe("web", crate::ProbeKind::Startup, true);
    story.probe("web", crate::ProbeKind::Readiness, true);
    let json = serde_json::to_string(&story.history).unwrap();
    story.history = serde_json::from_str(&json).unwrap();
    assert_eq!(story.state("web"), "Running restarts:0 ready");
    let old = r#"{"attempts":1,"run":null,"last":null,"backoff":null,"trouble":null,"image":"Unknown","stop":"Asked"}"#;
    let old: ContainerHistory = serde_json::from_str(old).unwrap();
    assert_eq!((old.stop, old.probes), (Some(Stop::Asked), Default::default()));
}

#[test]
fn a_pod_that_ends_is_only_asked_whether_it_is_ready() {
    let mut story = Story::prepared(PROBED);
    story.start("web");
    story.probe("web", crate::ProbeKind::Startup, true);
    story.delete(30);
    assert_eq!(story.probes(), "web:Readiness");
}

const HOOKED: &str = r#"{"containers":[
    {"name":"web","image":"i","lifecycle":{"postStart":{"sleep":{"seconds":1}},"preStop":{"sleep":{"seconds":9}}}},
    {"name":"log","image":"i"}]}"#;

#[test]
fn a_post_start_hook_holds_back_the_container_and_the_next() {
    let mut story = Story::prepared(HOOKED);
    assert_eq!(story.steps(), "start web-0");
    story.start_hooked("web");
    assert_eq!(story.hooks(), "web:PostStart");
    assert_eq!(
        (story.steps().as_str(), story.state("web").as_str()),
        ("", "ContainerCreating restarts:0")
    );
    story.history.post_started("web", "web-0", None);
    assert_eq!(
        (story.steps().as_str(), story.state("web").as_str()),
        ("start log-0", "Running restarts:0 ready")
    );
}

#[test]
fn a_failed_post_start_hook_ends_the_container() {
    let mut story = Story::prepared(HOOKED);
    story.start_hooked("web");
    story
        .history
        .post_started("web", "web-0", Some("exit code 1".to_owned()));
    assert_eq!(story.state("web"), "PostStartHookError restarts:0");
    assert_eq!(story.stop(), "FailedPostStartHook");
    story.history.pre_stopped("web", "web-0");
    assert_eq!(story.steps(), "signal web 15, start log-0");
    story.exit("web", 137);
    assert_eq!(story.steps(), "start web-1");
}

#[test]
fn the_pre_stop_hook_counts_against_the_grace() {
    let mut story = Story::prepared(HOOKED);
    story.start("web");
    story.start("log");
    story.delete(10);
    assert_eq!(story.steps(), "hook web, signal log 15");
    assert_eq!(story.stop(), "Stopping container web");
    assert_eq!(story.hooks(), "web:PreStop");
    story.signalled("log", Stop::Asked);
    story.exit("log", 143);
    assert_eq!(story.steps(), "wait 10");
    story.pass(9);
    story.history.pre_stopped("web", "web-0");
    assert_eq!(story.steps(), "signal web 15");
    assert_eq!(story.stop(), "");
    assert_eq!(story.steps(), "wait 2");
    story.pass(2);
    assert_eq!(story.steps(), "kill web");
}

#[test]
fn a_hook_that_takes_too_long_is_left_behind() {
    let mut story = Story::prepared(HOOKED);
    story.start("web");
    story.delete(10);
    story.stop();
    story.pass(10);
    assert_eq!(story.steps(), "signal web 15");
}

#[test]
fn an_unfinished_pre_stop_hook_runs_again_under_the_next_agent() {
    let mut story = Story::prepared(HOOKED);
    story.start("web");
    story.delete(10);
    story.stop();
    story.history.taken_over(&story.pod);
    assert_eq!(story.steps(), "hook web");
}

#[test]
fn another_image_makes_another_attempt() {
    let mut story = Story::prepared(ONE_NEVER);
    story.start("web");
    let run = story.history.container_mut("web").run.as_mut().unwrap();
    run.started_with.image = Some("i".to_owned());
    assert_eq!(story.steps(), "");
    story.pod.spec.as_mut().unwrap().containers[0].image = Some("j".to_owned());
    assert_eq!(
        story.stop(),
        "Container web definition changed, will be restarted"
    );
    story.exit("web", 0);
    assert_eq!(story.steps(), "start web-1");
}

#[test]
fn rules_about_exit_codes_come_before_the_policy() {
    let spec = r#"{"restartPolicy":"Never","containers":[{"name":"web","image":"i","restartPolicy":"Never",
        "restartPolicyRules":[{"action":"Restart","exitCodes":{"operator":"In","values":[42]}}]}]}"#;
    let mut story = Story::prepared(spec);
    story.start("web");
    story.exit("web", 42);
    assert_eq!(story.steps(), "start web-1");
    story.start("web");
    story.exit("web", 1);
    assert_eq!(story.phase(), "Failed");
}

const GATED: &str = r#"{"initContainers":[{"name":"side","image":"i","restartPolicy":"Always",
    "startupProbe":{"tcpSocket":{"port":1}},"readinessProbe":{"tcpSocket":{"port":1},"failureThreshold":1}}],
    "containers":[{"name":"web","image":"i"}]}"#;

#[test]
fn a_sidecar_that_has_not_started_holds_the_others_back() {
    let mut story = Story::prepared(GATED);
    story.start("side");
    assert_eq!(
        (story.steps().as_str(), story.condition("Initialized").as_str()),
        ("", "False ContainersNotInitialized @0")
    );
    story.probe("side", crate::ProbeKind::Startup, true);
    assert_eq!(
        (story.steps().as_str(), story.condition("Initialized").as_str()),
        ("start web-0", "True - @0")
    );
    story.start("web");
    assert_eq!(story.condition("Ready"), "False ContainersNotReady @0");
    story.probe("side", crate::ProbeKind::Readiness, true);
    assert_eq!(story.condition("Ready"), "True - @0");
}

#[test]
fn an_ephemeral_container_runs_once_and_counts_for_nothing() {
    let mut story = Story::prepared(ONE);
    story.start("web");
    let added = r#"[{"name":"debug","image":"i"}]"#;
    story.pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_str(added).unwrap();
    assert_eq!(story.steps(), "find debug");
    story.find_images();
    assert_eq!(story.steps(), "start debug-0");
    story.start("debug");
    story.plan();
    let status = story.status.ephemeral_container_statuses.clone().unwrap();
    assert!(status[0].state.as_ref().unwrap().running.is_some());
    assert_eq!(story.condition("Ready"), "True - @0");
    story.exit("debug", 1);
    assert_eq!((story.steps().as_str(), story.phase().as_str()), ("", "Running"));
    story.start("debug");
    story.delete(30);
    assert_eq!(story.steps(), "signal debug 15, signal web 15");
}

const SIZED: &str = r#"{"containers":[{"name":"web","image":"i","resources":{"limits":{"cpu":"1","memory":"1Gi"}},
    "resizePolicy":[{"resourceName":"memory","restartPolicy":"RestartContainer"}]}]}"#;

impl Story {
    fn limit(&mut self, name: &str, amount: &str) {
        let spec = self.pod.spec.as_mut().unwrap();
        let resources = spec.containers[0].resources.as_mut().unwrap();
        let limits = resources.limits.as_mut().unwrap();
        limits.insert(name.to_owned(), serde_json::from_value(amount.into()).unwrap());
    }

    fn given(&mut self, name: &str) -> String {
        self.plan();
        let status = &self.status.container_statuses.as_ref().unwrap()[0];
        let limits = status.resources.as_ref().unwrap().limits.as_ref().unwrap();
        limits[name].0.clone()
    }
}

#[test]
fn a_running_container_is_resized_in_place_or_restarted() {
    let mut story = Story::prepared(SIZED);
    story.start("web");
    story.history.taken_over(&story.pod);
    assert_eq!(story.steps(), "");
    story.limit("cpu", "2");
    assert_eq!(
        (story.steps().as_str(), story.given("cpu").as_str()),
        ("resize", "1")
    );
    assert_eq!(story.condition("PodResizeInProgress"), "True - @0");
    story.history.resized(&story.pod);
    assert_eq!((story.steps().as_str(), story.given("cpu").as_str()), ("", "2"));
    story.limit("memory", "2Gi");
    assert_eq!(story.steps(), "signal web 15");
    assert_eq!(
        story.stop(),
        "Container web resize requires restart, will be restarted"
    );
    story.exit("web", 0);
    assert_eq!(story.steps(), "start web-1");
}

#[test]
fn a_size_for_which_there_is_no_room_waits() {
    let mut story = Story::prepared(SIZED);
    story.start("web");
    story.history.taken_over(&story.pod);
    story.limit("cpu", "64");
    story.history.resize.hold = Some(crate::Hold {
        reason: "Infeasible".to_owned(),
        message: "too much".to_owned(),
    });
    assert_eq!(story.steps(), "wait 5");
    assert_eq!(story.condition("PodResizePending"), "True Infeasible @0");
    assert_eq!(story.given("cpu"), "1");
}
