//! Which containers a pod has, which of them restart, and when a pod is over.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerRestartRuleOnExitCodes, Pod};

use crate::backoff::later;
use crate::history::{ContainerHistory, History};
use crate::probes;

/// For how long a failed start is shown as such before the ordinary back-off takes over. Kubelet shows it until its
/// next look at the runtime, which is a second later.
pub(crate) const START_ERROR_SECONDS: i64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to completion before what comes after it.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside what comes after it.
    Sidecar,
    Main,
    /// Added to a running pod to look into it; runs once and counts for nothing.
    Ephemeral,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// What becomes of a container now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Unstarted,
    Running,
    /// Ended, and to be started again now.
    Due,
    /// Could not be started, which is shown until then.
    StartFailed {
        until: Timestamp,
    },
    /// Ended, and to be started again then.
    Resting {
        until: Timestamp,
        seconds: i64,
    },
    /// Ended for good.
    Ended {
        exit_code: i32,
    },
}

/// All containers of a pod in the order in which they start.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    let spec = pod.spec.as_ref();
    let inits = spec
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    let mains = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    inits
        .iter()
        .map(|container| (init_role(container), container))
        .chain(mains.iter().map(|c| (Role::Main, c)))
}

/// The ephemeral containers of a pod, as ordinary ones.
pub(crate) fn ephemeral(pod: &Pod) -> Vec<Container> {
    let spec = pod.spec.as_ref();
    let list = spec.and_then(|spec| spec.ephemeral_containers.as_deref());
    let list = list.unwrap_or_default().iter();
    list.map(flotilla_api::ephemeral_as_container).collect()
}

/// The container of that name, of whichever role.
pub fn find_container(pod: &Pod, name: &str) -> Option<Container> {
    let mut ordinary = containers(pod).map(|(_, container)| container);
    let found = ordinary.find(|container| container.name == name).cloned();
    found.or_else(|| {
        ephemeral(pod)
            .into_iter()
            .find(|container| container.name == name)
    })
}

fn init_role(container: &Container) -> Role {
    match container.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    }
}

pub(crate) fn fate(pod: &Pod, role: Role, container: &Container, history: &History, now: Timestamp) -> Fate {
    let Some(container_history) = history.containers.get(&container.name) else {
        return Fate::Unstarted;
    };
    let Some(run) = &container_history.run else {
        return Fate::Unstarted;
    };
    let Some(finished) = &run.finished else {
        return Fate::Running;
    };
    if !finished.is_replaced && !restarts(pod, role, container, finished.exit_code) {
        return Fate::Ended {
            exit_code: finished.exit_code,
        };
    }
    rest(
        container_history,
        finished.started_at.is_none(),
        finished.finished_at,
        now,
    )
}

fn rest(history: &ContainerHistory, start_failed: bool, finished_at: Timestamp, now: Timestamp) -> Fate {
    let shown_until = later(finished_at, START_ERROR_SECONDS);
    if start_failed && now < shown_until {
        return Fate::StartFailed { until: shown_until };
    }
    let Some(backoff) = &history.backoff else {
        return Fate::Due;
    };
    match backoff.due(finished_at) {
        Some(until) if now < until => Fate::Resting {
            until,
            seconds: backoff.seconds,
        },
        _ => Fate::Due,
    }
}

fn policy(pod: &Pod, role: Role, container: &Container) -> RestartPolicy {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    let policy = match container.restart_policy.as_deref().or(of_pod) {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    };
    match (role, policy) {
        (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        _ => policy,
    }
}

/// Whether a container that is stopped for a failed probe is started again.
pub(crate) fn may_replace(pod: &Pod, role: Role, container: &Container) -> bool {
    policy(pod, role, container) != RestartPolicy::Never
}

/// Rules about exit codes come first; the policy is for what none of them names.
fn restarts(pod: &Pod, role: Role, container: &Container, exit_code: i32) -> bool {
    if role == Role::Ephemeral {
        return false;
    }
    let mut rules = container.restart_policy_rules.iter().flatten();
    if let Some(rule) = rules.find(|rule| rule.exit_codes.as_ref().is_some_and(|on| names(on, exit_code))) {
        return rule.action == "Restart";
    }
    match policy(pod, role, container) {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

fn names(on: &ContainerRestartRuleOnExitCodes, exit_code: i32) -> bool {
    let is_listed = on.values.iter().flatten().any(|value| *value == exit_code);
    is_listed == (on.operator == "In")
}

/// How a pod ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) phase: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

/// Whether the pod is over, whatever its containers do now. What was once said stays so.
pub(crate) fn verdict(
    pod: &Pod,
    history: &History,
    previous: &k8s_openapi::api::core::v1::PodStatus,
    now: Timestamp,
) -> Option<Verdict> {
    if let Some(phase @ ("Succeeded" | "Failed")) = previous.phase.as_deref() {
        let phase = if phase == "Failed" { "Failed" } else { "Succeeded" };
        return Some(Verdict {
            phase,
            reason: previous.reason.clone(),
            message: previous.message.clone(),
        });
    }
    if let Some(ended) = &history.ended {
        return Some(Verdict {
            phase: "Failed",
            reason: Some(ended.reason.clone()),
            message: Some(ended.message.clone()),
        });
    }
    if deadline(pod, history).is_some_and(|deadline| deadline <= now) {
        return Some(Verdict {
            phase: "Failed",
            reason: Some("DeadlineExceeded".to_owned()),
            message: Some("Pod was active on the node longer than the specified deadline".to_owned()),
        });
    }
    let plain = |phase| {
        Some(Verdict {
            phase,
            reason: None,
            message: None,
        })
    };
    let mut all_succeeded = true;
    for (role, container) in containers(pod) {
        match (role, fate(pod, role, container, history, now)) {
            (Role::Sidecar, _) | (Role::Init, Fate::Ended { exit_code: 0 }) => {}
            (Role::Init, Fate::Ended { .. }) => return plain("Failed"),
            (Role::Main, Fate::Ended { exit_code }) => all_succeeded &= exit_code == 0,
            _ => return None,
        }
    }
    plain(if all_succeeded { "Succeeded" } else { "Failed" })
}

/// When `activeDeadlineSeconds` runs out.
pub(crate) fn deadline(pod: &Pod, history: &History) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    Some(later(history.started_at?, seconds))
}

/// Whether no ordinary init container is left to run.
pub(crate) fn is_initialized(pod: &Pod, history: &History, now: Timestamp) -> bool {
    unready_inits(pod, history, now).is_empty()
}

/// The init containers that keep the others from starting.
pub(crate) fn unready_inits(pod: &Pod, history: &History, now: Timestamp) -> Vec<String> {
    if any_main_ran(pod, history) {
        return Vec::new();
    }
    let blocks = |role: Role, container: &Container| match (role, fate(pod, role, container, history, now)) {
        (Role::Main | Role::Ephemeral, _) | (Role::Init, Fate::Ended { exit_code: 0 }) => false,
        (Role::Sidecar, Fate::Running) => !has_started(container, history),
        (Role::Init | Role::Sidecar, _) => true,
    };
    let blocking = containers(pod).filter(|(role, container)| blocks(*role, container));
    blocking.map(|(_, container)| container.name.clone()).collect()
}

/// Whether the container runs and has passed its startup probe.
pub(crate) fn has_started(container: &Container, history: &History) -> bool {
    let past = history.containers.get(&container.name);
    past.is_some_and(|past| probes::is_started(container, past))
}

/// Whether an ordinary container got its turn in this sandbox, so that the init containers are done.
pub(crate) fn any_main_ran(pod: &Pod, history: &History) -> bool {
    let ran = |name: &str| {
        let past = history.containers.get(name);
        past.is_some_and(|past| past.is_running() || (history.sandboxes <= 1 && past.attempts > 0))
    };
    containers(pod).any(|(role, container)| role == Role::Main && ran(&container.name))
}
