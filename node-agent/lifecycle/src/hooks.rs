//! Lifecycle hooks: which are to run now, and what to tell when one fails.

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::handlers::{Check, HandlerError, hook_check};
use crate::history::{History, PostStart, Stop};
use crate::notices::Notice;
use crate::rules;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    /// Right after the start.
    PostStart,
    /// Before the stop signal.
    PreStop,
}

impl HookKind {
    fn of(self, container: &Container) -> Option<&LifecycleHandler> {
        let hooks = container.lifecycle.as_ref()?;
        match self {
            HookKind::PostStart => hooks.post_start.as_ref(),
            HookKind::PreStop => hooks.pre_stop.as_ref(),
        }
    }

    fn field(self) -> &'static str {
        match self {
            HookKind::PostStart => "lifecycle.postStart",
            HookKind::PreStop => "lifecycle.preStop",
        }
    }
}

/// A hook that is to run, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedHook {
    /// The container's name.
    pub container: String,
    /// The attempt, by the runtime's name of it.
    pub id: String,
    /// When it runs.
    pub kind: HookKind,
    /// What to do, or why that cannot be known.
    pub check: Result<Check, HandlerError>,
}

/// The hooks that are to run now. An agent that comes back runs again what its predecessor had not finished: a hook
/// runs at least once.
pub fn wanted_hooks(pod: &Pod, history: &History, host_addresses: &[std::net::IpAddr]) -> Vec<WantedHook> {
    let mut wanted = Vec::new();
    for (_, container) in rules::containers(pod) {
        let Some(past) = history
            .containers
            .get(&container.name)
            .filter(|past| past.is_running())
        else {
            continue;
        };
        let kind = match (&past.post_start, past.stop) {
            (_, Some(Stop::Hook)) => HookKind::PreStop,
            (Some(PostStart::Pending), None) => HookKind::PostStart,
            _ => continue,
        };
        let (Some(handler), Some(run)) = (kind.of(container), &past.run) else {
            continue;
        };
        let handler = (kind.field(), handler);
        wanted.push(WantedHook {
            container: container.name.clone(),
            id: run.id.clone(),
            kind,
            check: hook_check(pod, container, handler, &history.addresses, host_addresses),
        });
    }
    wanted
}

/// The event about a hook that failed. What it said stays out of it: it may be a secret of the application.
pub fn hook_failure(pod: &Pod, container: &str, kind: HookKind) -> Notice {
    let (reason, message) = match kind {
        HookKind::PostStart => ("FailedPostStartHook", "PostStartHook failed"),
        HookKind::PreStop => ("FailedPreStopHook", "PreStopHook failed"),
    };
    Notice::of_container(pod, container, true, reason, message.to_owned())
}

/// Whether something is to run right after the container's start.
pub(crate) fn has_post_start(container: &Container) -> bool {
    HookKind::PostStart.of(container).is_some()
}

impl History {
    /// A container was started: its postStart hook comes first.
    pub fn expect_post_start(&mut self, container: &Container) {
        if has_post_start(container) {
            self.container_mut(&container.name).post_start = Some(PostStart::Pending);
        }
    }

    /// An agent takes over from an earlier one, whose hooks have ended with it.
    pub fn taken_over(&mut self, pod: &Pod) {
        self.pulls_lost();
        self.assume_sizes(pod);
        for past in self.containers.values_mut() {
            if past.stop == Some(Stop::Hook) {
                past.stop = None;
            }
        }
    }
}
