//! How a container is brought to its end: hook, signal, and when all grace is used up, SIGKILL.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde::{Deserialize, Serialize};

use crate::backoff::later;
use crate::history::{ContainerHistory, History, PostStart, Run, Stop};
use crate::plan::{Draft, Step, View};
use crate::resize;
use crate::rules::{self, Role};
use crate::signals::stop_signal;

/// Kubernetes' default of `terminationGracePeriodSeconds`.
pub(crate) const DEFAULT_GRACE_SECONDS: i64 = 30;
/// A container that is asked to stop has at least this long, however long its hook took.
const SIGNAL_SECONDS_MIN: i64 = 2;

/// The end of one container whose pod goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// When it began.
    pub since: Timestamp,
    /// How long it may take.
    pub grace_seconds: i64,
    /// Another attempt follows, whatever the exit code will be.
    pub is_replaced: bool,
}

/// Why one container of a running pod is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Liveness,
    Startup,
    PostStart,
    Definition,
    Resize,
}

/// Why the running attempt is to end although its pod goes on.
pub(crate) fn cause(container: &Container, past: &ContainerHistory) -> Option<Cause> {
    let run = past.run.as_ref().filter(|_| past.is_running())?;
    let is_other_image = run.started_with.image.is_some() && run.started_with.image != container.image;
    if matches!(past.post_start, Some(PostStart::Failed { .. })) {
        Some(Cause::PostStart)
    } else if is_other_image {
        Some(Cause::Definition)
    } else if container.startup_probe.is_some() && past.probes.startup.verdict == Some(false) {
        Some(Cause::Startup)
    } else if container.liveness_probe.is_some() && past.probes.liveness.verdict == Some(false) {
        Some(Cause::Liveness)
    } else {
        None
    }
}

impl Cause {
    /// Kubelet's words for the event.
    fn message(self, name: &str, is_replaced: bool) -> String {
        let what = match self {
            Cause::Liveness => "failed liveness probe",
            Cause::Startup => "failed startup probe",
            Cause::Definition => "definition changed",
            Cause::Resize => "resize requires restart",
            Cause::PostStart => return "FailedPostStartHook".to_owned(),
        };
        let then = if is_replaced { ", will be restarted" } else { "" };
        format!("Container {name} {what}{then}")
    }

    /// A probe may have a grace of its own.
    fn grace_seconds(self, pod: &Pod, container: &Container) -> i64 {
        let probe = match self {
            Cause::Liveness => container.liveness_probe.as_ref(),
            Cause::Startup => container.startup_probe.as_ref(),
            Cause::PostStart | Cause::Definition | Cause::Resize => None,
        };
        let of_pod = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        probe
            .and_then(|probe| probe.termination_grace_period_seconds)
            .or(of_pod)
            .unwrap_or(DEFAULT_GRACE_SECONDS)
    }
}

/// Stops the container alone, if there is a cause or it has begun.
pub(crate) fn stop_alone(
    view: &View<'_>,
    (role, container): (Role, &Container),
    past: &ContainerHistory,
    draft: &mut Draft,
) {
    if !past.is_running() {
        return;
    }
    let is_to_grow = view.history.resize.hold.is_none() && resize::needs_restart(container, past);
    let cause = cause(container, past).or(is_to_grow.then_some(Cause::Resize));
    let begun = past.stopping.clone();
    let is_replaced = |cause| match cause {
        Cause::Definition | Cause::Resize => true,
        Cause::PostStart => false,
        Cause::Liveness | Cause::Startup => rules::may_replace(view.pod, role, container),
    };
    let message = cause.map(|cause| cause.message(&container.name, is_replaced(cause)));
    let new = |cause: Cause| Stopping {
        since: view.now,
        grace_seconds: cause.grace_seconds(view.pod, container),
        is_replaced: is_replaced(cause),
    };
    if let Some(stopping) = begun.or_else(|| cause.map(new)) {
        let stop = StopOne {
            since: stopping.since,
            grace_seconds: stopping.grace_seconds,
            has_turn: true,
            message: message.unwrap_or_else(|| format!("Stopping container {}", container.name)),
            alone: Some(stopping),
        };
        stop.next(container, past, view.now, draft);
    }
}

/// One container on its way to its end.
pub(crate) struct StopOne {
    pub(crate) since: Timestamp,
    pub(crate) grace_seconds: i64,
    /// Nothing that must end before it still runs.
    pub(crate) has_turn: bool,
    /// For the event.
    pub(crate) message: String,
    pub(crate) alone: Option<Stopping>,
}

impl StopOne {
    /// Adds the next step, or when to look again.
    pub(crate) fn next(
        self,
        container: &Container,
        past: &ContainerHistory,
        now: Timestamp,
        draft: &mut Draft,
    ) {
        let Some(run) = past.run.as_ref() else { return };
        let grace_end = later(self.since, self.grace_seconds);
        let is_late = now >= grace_end;
        match past.stop {
            Some(Stop::Killed) => {}
            Some(Stop::Asked) => {
                let shortest = past.signalled_at.map(|at| later(at, SIGNAL_SECONDS_MIN));
                let kill_at = shortest.map_or(grace_end, |at| at.max(grace_end));
                if now >= kill_at || self.grace_seconds == 0 {
                    draft.steps.push(self.kill(container, run, past));
                } else {
                    draft.look_again(kill_at);
                }
            }
            _ if self.grace_seconds == 0 => draft.steps.push(self.kill(container, run, past)),
            None if !is_late && has_pre_stop(container) => {
                draft.steps.push(Step::PreStop {
                    container: container.name.clone(),
                    id: run.id.clone(),
                    begin: self.begin(past),
                });
            }
            Some(Stop::Hook) if !is_late => draft.look_again(grace_end),
            None | Some(Stop::Ready) if !is_late && !self.has_turn => draft.look_again(grace_end),
            None | Some(Stop::Hook | Stop::Ready) => draft.steps.push(Step::Signal {
                container: container.name.clone(),
                id: run.id.clone(),
                signal: stop_signal(container, run.stop_signal.as_deref()),
                begin: self.begin(past),
            }),
        }
    }

    fn kill(self, container: &Container, run: &Run, past: &ContainerHistory) -> Step {
        Step::Kill {
            container: container.name.clone(),
            id: run.id.clone(),
            begin: self.begin(past),
        }
    }

    fn begin(self, past: &ContainerHistory) -> Option<Begin> {
        let is_first = past.stop.is_none();
        is_first.then_some(Begin {
            message: self.message,
            alone: self.alone,
        })
    }
}

/// What the first step of a container's end brings with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// For the event `Killing`.
    pub message: String,
    /// The container ends alone; none when its pod ends.
    pub alone: Option<Stopping>,
}

fn has_pre_stop(container: &Container) -> bool {
    let hooks = container.lifecycle.as_ref();
    hooks.is_some_and(|hooks| hooks.pre_stop.is_some())
}

impl History {
    /// A step of a container's end was carried out.
    pub fn stopped(&mut self, name: &str, stop: Stop, begin: Option<&Begin>, now: Timestamp) {
        match begin {
            Some(Begin { alone: None, .. }) => {
                self.stopping_since.get_or_insert(now);
            }
            Some(Begin { alone, .. }) => self.container_mut(name).stopping.clone_from(alone),
            None => {}
        }
        let past = self.container_mut(name);
        past.stop = Some(stop);
        if stop == Stop::Asked {
            past.signalled_at = Some(now);
        }
    }

    /// The preStop hook of attempt `id` is over, well or not.
    pub fn pre_stopped(&mut self, name: &str, id: &str) {
        let past = self.container_mut(name);
        if past.stop == Some(Stop::Hook) && past.run.as_ref().is_some_and(|run| run.id == id) {
            past.stop = Some(Stop::Ready);
        }
    }

    /// The postStart hook of attempt `id` is over; what went wrong, if something did.
    pub fn post_started(&mut self, name: &str, id: &str, failure: Option<String>) {
        let past = self.container_mut(name);
        if past.is_running() && past.run.as_ref().is_some_and(|run| run.id == id) {
            past.post_start = failure.map(|message| PostStart::Failed { message });
        }
    }
}
