//! The pod's conditions; a transition time changes only when the condition's status does.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::history::Sandbox;
use crate::plan::View;
use crate::resize::is_resize_wanted;
use crate::rules::{self, Role};

const PENDING: &str = "PodResizePending";
const IN_PROGRESS: &str = "PodResizeInProgress";

struct Verdict {
    is_true: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

const TRUE: Verdict = Verdict {
    is_true: true,
    reason: None,
    message: None,
};

fn no(reason: &'static str, message: String) -> Verdict {
    let message = (!message.is_empty()).then_some(message);
    Verdict {
        is_true: false,
        reason: Some(reason),
        message,
    }
}

pub(super) fn conditions(
    view: &View<'_>,
    phase: &str,
    inits: &[ContainerStatus],
    mains: &[ContainerStatus],
) -> Vec<PodCondition> {
    let has_network = matches!(view.history.sandbox, Sandbox::Ready);
    let sandbox = Verdict {
        is_true: has_network,
        reason: None,
        message: None,
    };
    let sidecars = inits.iter().filter(|status| is_sidecar(view, &status.name));
    let lasting: Vec<&ContainerStatus> = sidecars.chain(mains).collect();
    let containers_ready = containers_ready(phase, &lasting);
    let ready =
        ready(view, containers_ready.is_true).unwrap_or_else(|| self::containers_ready(phase, &lasting));
    let mut own = vec![
        condition(view, "PodReadyToStartContainers", sandbox),
        condition(view, "Initialized", initialized(view, phase, inits, mains)),
        condition(view, "Ready", ready),
        condition(view, "ContainersReady", containers_ready),
        condition(view, "PodScheduled", TRUE),
    ];
    own.extend(disruption(view));
    own.extend(resize(view));
    let others = foreign(view).into_iter();
    let others: Vec<PodCondition> = others
        .filter(|condition| own.iter().all(|known| known.type_ != condition.type_))
        .collect();
    own.extend(others);
    own
}

/// Tells that the node itself has ended the pod.
fn disruption(view: &View<'_>) -> Option<PodCondition> {
    let ended = view.history.ended.as_ref().filter(|ended| ended.is_disruption)?;
    let verdict = Verdict {
        is_true: true,
        reason: Some("TerminationByKubelet"),
        message: Some(ended.message.clone()),
    };
    Some(condition(view, "DisruptionTarget", verdict))
}

/// How far a wanted size is; nothing once it is given.
fn resize(view: &View<'_>) -> Option<PodCondition> {
    if !is_resize_wanted(view.pod, view.history) {
        return None;
    }
    let resize = &view.history.resize;
    let told = |type_, reason: Option<String>, message: Option<String>| PodCondition {
        reason,
        message,
        ..condition(view, type_, TRUE)
    };
    Some(match &resize.hold {
        Some(hold) => told(PENDING, Some(hold.reason.clone()), Some(hold.message.clone())),
        None => {
            let reason = resize.failure.is_some().then(|| "Error".to_owned());
            told(IN_PROGRESS, reason, resize.failure.clone())
        }
    })
}

/// Conditions that others own, such as readiness gates, pass through.
fn foreign(view: &View<'_>) -> Vec<PodCondition> {
    const OWN: [&str; 7] = [
        PENDING,
        IN_PROGRESS,
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ];
    let theirs = view
        .pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    theirs
        .filter(|condition| !OWN.contains(&condition.type_.as_str()))
        .cloned()
        .collect()
}

fn is_sidecar(view: &View<'_>, name: &str) -> bool {
    rules::containers(view.pod).any(|(role, container)| role == Role::Sidecar && container.name == name)
}

fn initialized(
    view: &View<'_>,
    phase: &str,
    inits: &[ContainerStatus],
    mains: &[ContainerStatus],
) -> Verdict {
    if phase == "Succeeded" {
        return Verdict {
            reason: Some("PodCompleted"),
            ..TRUE
        };
    }
    let mains_ran = mains.iter().any(|status| status.container_id.is_some());
    let is_done = |status: &ContainerStatus| {
        status.ready || (status.started == Some(true) && is_sidecar(view, &status.name))
    };
    let incomplete = inits.iter().filter(|status| !is_done(status) && !mains_ran);
    let names: Vec<&str> = incomplete.map(|status| status.name.as_str()).collect();
    if names.is_empty() {
        return TRUE;
    }
    no(
        "ContainersNotInitialized",
        format!("containers with incomplete status: [{}]", names.join(" ")),
    )
}

/// `lasting`: the containers that run for as long as the pod does.
fn containers_ready(phase: &str, lasting: &[&ContainerStatus]) -> Verdict {
    match phase {
        "Succeeded" => return no("PodCompleted", String::new()),
        "Failed" => return no("PodFailed", String::new()),
        _ => {}
    }
    let unready = lasting.iter().filter(|status| !status.ready);
    let names: Vec<&str> = unready.map(|status| status.name.as_str()).collect();
    if names.is_empty() {
        return TRUE;
    }
    no(
        "ContainersNotReady",
        format!("containers with unready status: [{}]", names.join(" ")),
    )
}

/// What the readiness gates say; none when the containers alone decide.
fn ready(view: &View<'_>, containers_ready: bool) -> Option<Verdict> {
    let gates = view.pod.spec.as_ref()?.readiness_gates.as_ref()?;
    let conditions = view
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let complaint = |gate: &str| match conditions.iter().find(|condition| condition.type_ == gate) {
        None => Some(format!(
            "corresponding condition of pod readiness gate \"{gate}\" does not exist."
        )),
        Some(found) if found.status != "True" => Some(format!(
            "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
            found.status
        )),
        Some(_) => None,
    };
    let complaints: Vec<String> = gates
        .iter()
        .filter_map(|gate| complaint(&gate.condition_type))
        .collect();
    if !containers_ready || complaints.is_empty() {
        return None;
    }
    Some(no("ReadinessGatesNotReady", complaints.join(", ")))
}

fn condition(view: &View<'_>, type_: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.is_true { "True" } else { "False" };
    let previous = view.previous.conditions.iter().flatten();
    let known = view
        .pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let same = previous.chain(known).find(|condition| condition.type_ == type_);
    let since = same
        .filter(|condition| condition.status == status)
        .and_then(|same| same.last_transition_time.clone());
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: Some(since.unwrap_or(Time(view.now))),
        last_probe_time: None,
        observed_generation: view.pod.metadata.generation,
    }
}
