//! The next steps of one pod.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

use crate::backoff::later;
use crate::history::{ContainerHistory, History, ImageState, PostStart, Sandbox};
use crate::hooks;
use crate::resize;
use crate::rules::{self, Fate, Role, Verdict};
use crate::status;
use crate::stopping::{Begin, DEFAULT_GRACE_SECONDS, StopOne, stop_alone};
use crate::volumes::{self, Need};

/// A container that cannot be created is tried again after this long.
const TROUBLE_SECONDS: i64 = 10;
/// A size for which there is no room is asked for again after this long.
const DEFERRED_SECONDS: i64 = 5;
/// A sandbox that cannot be made is tried again after one second, then two, then four, up to this.
const SANDBOX_SECONDS_MAX: i64 = 10;

/// What is known when a decision is due.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The desired pod.
    pub pod: &'a Pod,
    /// What happened to it here.
    pub history: &'a History,
    /// The status that was made last; times of conditions carry over from it.
    pub previous: &'a PodStatus,
    /// The node's own addresses.
    pub host_addresses: &'a [IpAddr],
    /// The moment of the decision.
    pub now: Timestamp,
}

/// What to do now, and what to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order. Steps before the first `Start` may run at the same time.
    pub steps: Vec<Step>,
    /// The pod's status as of now.
    pub status: PodStatus,
    /// When to ask again if nothing happens before.
    pub look_again_at: Option<Timestamp>,
    /// The pod is on its way out, or over.
    pub is_ending: bool,
    /// The pod was to end, and nothing of it is left here.
    pub is_gone: bool,
}

/// One thing for the agent to do. It tells [`History`] what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Look for the container's image.
    FindImage {
        /// The container's name.
        container: String,
    },
    /// Make the volumes, or bring them up to date.
    SetUpVolumes,
    /// Make namespaces and attach the network; remove a lost sandbox first.
    MakeSandbox,
    /// Start a container.
    Start {
        /// Its name.
        container: String,
        /// The number of this attempt, from 0.
        attempt: u32,
    },
    /// Run a container's preStop hook; its end is near.
    PreStop {
        /// Its name.
        container: String,
        /// The runtime's name of it.
        id: String,
        /// Set when this is the first step of its end.
        begin: Option<Begin>,
    },
    /// Ask a container to stop.
    Signal {
        /// Its name.
        container: String,
        /// The runtime's name of it.
        id: String,
        /// The signal's number.
        signal: i32,
        /// Set when this is the first step of its end.
        begin: Option<Begin>,
    },
    /// End a container with SIGKILL.
    Kill {
        /// Its name.
        container: String,
        /// The runtime's name of it.
        id: String,
        /// Set when this is the first step of its end.
        begin: Option<Begin>,
    },
    /// Give the pod and its running containers what the pod now says they may use.
    Resize,
    /// Take down namespaces and network.
    RemoveSandbox,
    /// Remove the volumes, and what is in those that live with the pod.
    RemoveVolumes,
}

/// Decides what to do next for a pod.
pub fn plan(view: &View<'_>) -> Plan {
    let verdict = rules::verdict(view.pod, view.history, view.previous, view.now);
    let mut draft = Draft::default();
    let grace = grace_seconds(view, verdict.as_ref());
    match grace {
        Some(grace) => end(view, grace, &mut draft),
        None => run(view, &mut draft),
    }
    Plan {
        is_ending: grace.is_some(),
        status: status::status(view, verdict.as_ref()),
        steps: draft.steps,
        look_again_at: draft.look_again_at,
        is_gone: draft.is_gone,
    }
}

/// How long containers may take to stop; none when the pod is to run.
fn grace_seconds(view: &View<'_>, verdict: Option<&Verdict>) -> Option<i64> {
    let meta = &view.pod.metadata;
    let of_spec = view
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    let of_spec = of_spec.unwrap_or(DEFAULT_GRACE_SECONDS);
    if view.history.removed {
        return Some(0);
    }
    if meta.deletion_timestamp.is_some() {
        return Some(meta.deletion_grace_period_seconds.unwrap_or(of_spec));
    }
    let of_end = view.history.ended.as_ref().map(|ended| ended.grace_seconds);
    verdict.map(|_| of_end.unwrap_or(of_spec))
}

/// Whether the pod is on its way out, or over.
pub(crate) fn is_ending(view: &View<'_>, verdict: Option<&Verdict>) -> bool {
    grace_seconds(view, verdict).is_some()
}

/// The plan while it is being made.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) steps: Vec<Step>,
    look_again_at: Option<Timestamp>,
    is_gone: bool,
}

impl Draft {
    pub(crate) fn look_again(&mut self, at: Timestamp) {
        self.look_again_at = Some(self.look_again_at.map_or(at, |before| before.min(at)));
    }
}

fn end(view: &View<'_>, grace: i64, draft: &mut Draft) {
    let running = running(view);
    if running.is_empty() {
        match view.history.sandbox {
            Sandbox::Absent | Sandbox::Removed if view.history.volumes.is_present() => {
                draft.steps.push(Step::RemoveVolumes);
            }
            Sandbox::Absent | Sandbox::Removed => {
                draft.is_gone = view.history.removed || view.pod.metadata.deletion_timestamp.is_some();
            }
            Sandbox::Ready | Sandbox::Lost | Sandbox::Failed { .. } => draft.steps.push(Step::RemoveSandbox),
        }
        return;
    }
    let has_others = running.iter().any(|(role, ..)| *role != Role::Sidecar);
    let last = running.len() - 1;
    for (index, (role, container, past)) in running.into_iter().enumerate() {
        let stop = StopOne {
            since: view.history.stopping_since.unwrap_or(view.now),
            grace_seconds: grace,
            has_turn: role != Role::Sidecar || (!has_others && index == last),
            message: format!("Stopping container {}", container.name),
            alone: None,
        };
        stop.next(&container, past, view.now, draft);
    }
}

type Live<'a> = (Role, Cow<'a, Container>, &'a ContainerHistory);

/// All containers that run, in the order of their start. Sidecars outlive the others and stop one by one, the last
/// started first.
fn running<'a>(view: &View<'a>) -> Vec<Live<'a>> {
    let history = view.history;
    let live = |(role, container): (Role, Cow<'a, Container>)| {
        let past = history
            .containers
            .get(&container.name)
            .filter(|past| past.is_running())?;
        Some((role, container, past))
    };
    let ephemeral = rules::ephemeral(view.pod).into_iter();
    let ephemeral = ephemeral.map(|container| (Role::Ephemeral, Cow::Owned(container)));
    let ordinary = rules::containers(view.pod).map(|(role, container)| (role, Cow::Borrowed(container)));
    ephemeral.chain(ordinary).filter_map(live).collect()
}

fn run(view: &View<'_>, draft: &mut Draft) {
    if let Some(deadline) = rules::deadline(view.pod, view.history) {
        draft.look_again(deadline);
    }
    // What is mounted later than a sandbox is made is not seen in it.
    let has_sandbox = volumes(view, draft) && sandbox(view, draft);
    for (role, container) in rules::containers(view.pod) {
        if let Some(past) = view.history.containers.get(&container.name) {
            stop_alone(view, (role, container), past, draft);
        }
    }
    resize(view, draft);
    for container in rules::ephemeral(view.pod) {
        let fate = rules::fate(view.pod, Role::Ephemeral, &container, view.history, view.now);
        if fate == Fate::Unstarted && !is_troubled(view, &container, draft) {
            begin(view, &container, has_sandbox, draft);
        }
    }
    for container in due(view, draft) {
        begin(view, container, has_sandbox, draft);
    }
}

/// Containers that do not live through it are stopped instead, and get it with their next start.
fn resize(view: &View<'_>, draft: &mut Draft) {
    let mut outdated = resize::outdated(view.pod, view.history).peekable();
    if outdated.peek().is_none() {
        return;
    }
    if view.history.resize.hold.is_some() {
        draft.look_again(later(view.now, DEFERRED_SECONDS));
    } else if !outdated.any(|(container, past)| resize::needs_restart(container, past)) {
        draft.steps.push(Step::Resize);
    }
}

/// Brings a container one step nearer to its start.
fn begin(view: &View<'_>, container: &Container, has_sandbox: bool, draft: &mut Draft) {
    let history = view.history.containers.get(&container.name);
    let find = || Step::FindImage {
        container: container.name.clone(),
    };
    match history.map_or(&ImageState::Unknown, |history| &history.image) {
        ImageState::Unknown => draft.steps.push(find()),
        ImageState::Missing {
            since, wait_seconds, ..
        } => {
            let next = later(*since, *wait_seconds);
            if next <= view.now {
                draft.steps.push(find());
            } else {
                let shown_until = later(*since, rules::START_ERROR_SECONDS);
                draft.look_again(if view.now < shown_until { shown_until } else { next });
            }
        }
        ImageState::Present if has_sandbox => draft.steps.push(Step::Start {
            container: container.name.clone(),
            attempt: history.map_or(0, |history| history.attempts),
        }),
        ImageState::Present | ImageState::Pulling { .. } => {}
    }
}

fn volumes(view: &View<'_>, draft: &mut Draft) -> bool {
    if !volumes::are_wanted(view.pod) {
        return true;
    }
    match view.history.volumes.need(view.now) {
        Need::Nothing => {}
        Need::SetUp => draft.steps.push(Step::SetUpVolumes),
        Need::Wait(next) => draft.look_again(next),
    }
    view.history.volumes.is_usable()
}

fn sandbox(view: &View<'_>, draft: &mut Draft) -> bool {
    match &view.history.sandbox {
        Sandbox::Ready => return true,
        Sandbox::Failed { since, tries, .. } => {
            let wait = 1_i64
                .checked_shl(tries.saturating_sub(1))
                .unwrap_or(SANDBOX_SECONDS_MAX);
            let next = later(*since, wait.clamp(1, SANDBOX_SECONDS_MAX));
            if next <= view.now {
                draft.steps.push(Step::MakeSandbox);
            } else {
                draft.look_again(next);
            }
        }
        Sandbox::Absent | Sandbox::Lost | Sandbox::Removed => draft.steps.push(Step::MakeSandbox),
    }
    false
}

/// The containers whose turn it is to be started.
fn due<'a>(view: &View<'a>, draft: &mut Draft) -> Vec<&'a Container> {
    let mut due = Vec::new();
    let mains_ran = rules::any_main_ran(view.pod, view.history);
    for (role, container) in rules::containers(view.pod) {
        let fate = rules::fate(view.pod, role, container, view.history, view.now);
        let is_wanted = matches!(fate, Fate::Unstarted | Fate::Due);
        if is_wanted && !is_troubled(view, container, draft) && !(role == Role::Init && mains_ran) {
            due.push(container);
        }
        if let Fate::Resting { until, .. } | Fate::StartFailed { until } = fate {
            draft.look_again(until);
        }
        let is_open = match role {
            Role::Init => mains_ran || fate == Fate::Ended { exit_code: 0 },
            Role::Sidecar => mains_ran || rules::has_started(container, view.history),
            Role::Main | Role::Ephemeral => true,
        };
        // The next container waits for the hook of this one.
        let past = view.history.containers.get(&container.name);
        let is_hooked = past.is_some_and(|past| past.post_start == Some(PostStart::Pending))
            || (is_wanted && hooks::has_post_start(container));
        if !is_open || is_hooked {
            break;
        }
    }
    due
}

fn is_troubled(view: &View<'_>, container: &Container, draft: &mut Draft) -> bool {
    let history = view.history.containers.get(&container.name);
    let Some(trouble) = history.and_then(|history| history.trouble.as_ref()) else {
        return false;
    };
    let next = later(trouble.since, TROUBLE_SECONDS);
    if next <= view.now {
        return false;
    }
    draft.look_again(next);
    true
}

#[cfg(test)]
mod tests;
