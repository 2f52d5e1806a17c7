//! The status of one container.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, LinuxContainerUser, ResourceRequirements, VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::backoff::{go_duration, later};
use crate::history::{ContainerHistory, ImageState, PostStart, Run, Termination};
use crate::plan::View;
use crate::resize::allocated;
use crate::rules::{self, Fate, Role, START_ERROR_SECONDS};
use crate::{pod_label, probes, termination};

pub(super) fn status(
    view: &View<'_>,
    role: Role,
    container: &Container,
    ending: bool,
    initialized: bool,
) -> ContainerStatus {
    let history = view.history.container(&container.name);
    let state = state(view, role, container, &history, ending, initialized);
    let last = match (&state.waiting, history.finished()) {
        (Some(_), Some(finished)) => Some(finished),
        _ => history.last.as_ref(),
    };
    let is_started = probes::is_started(container, &history);
    let is_done = state
        .terminated
        .as_ref()
        .is_some_and(|terminated| terminated.exit_code == 0);
    ContainerStatus {
        name: container.name.clone(),
        image: history
            .run
            .as_ref()
            .map_or(container.image.clone().unwrap_or_default(), |run| {
                run.image.clone()
            }),
        image_id: history
            .run
            .as_ref()
            .map(|run| run.image_id.clone())
            .unwrap_or_default(),
        container_id: history.run.as_ref().map(|run| container_id(view, &run.id)),
        restart_count: i32::try_from(history.attempts.saturating_sub(1)).unwrap_or(i32::MAX),
        ready: match role {
            Role::Init => is_done,
            Role::Ephemeral => false,
            Role::Main | Role::Sidecar => probes::is_ready(container, &history),
        },
        started: (role != Role::Ephemeral).then_some(is_started),
        resources: resources(container, &history),
        allocated_resources: allocated(container, view.history)
            .resources
            .and_then(|own| own.requests),
        stop_signal: stop_signal_of(container),
        user: history.run.as_ref().and_then(user),
        volume_mounts: volume_mounts(container),
        last_state: last.map(|last| ContainerState {
            terminated: Some(terminated(view, last)),
            ..ContainerState::default()
        }),
        state: Some(state),
        ..ContainerStatus::default()
    }
}

fn state(
    view: &View<'_>,
    role: Role,
    container: &Container,
    history: &ContainerHistory,
    ending: bool,
    initialized: bool,
) -> ContainerState {
    // Until its hook is through a container counts as being created.
    let is_up = |run: &&Run| run.finished.is_none() && history.post_start.is_none();
    if let Some(run) = history.run.as_ref().filter(is_up) {
        let running = ContainerStateRunning {
            started_at: Some(Time(run.started_at)),
        };
        return ContainerState {
            running: Some(running),
            ..ContainerState::default()
        };
    }
    let ended = history.finished().map(|finished| ContainerState {
        terminated: Some(terminated(view, finished)),
        ..ContainerState::default()
    });
    if let Some(PostStart::Failed { message }) = &history.post_start {
        return waiting("PostStartHookError", Some(message.clone()));
    }
    if ending && let Some(ended) = ended {
        return ended;
    }
    if let Some((reason, message)) = obstacle(view, role, container, history) {
        return waiting(&reason, Some(message));
    }
    ended.unwrap_or_else(|| match initialized || role != Role::Main {
        true if !has_inits(view) => waiting("ContainerCreating", None),
        _ => waiting("PodInitializing", None),
    })
}

fn stop_signal_of(container: &Container) -> Option<String> {
    container.lifecycle.as_ref()?.stop_signal.clone()
}

/// What a running container may use; of another, nothing is known but the wish.
fn resources(container: &Container, history: &ContainerHistory) -> Option<ResourceRequirements> {
    let run = history.run.as_ref().filter(|_| history.is_running());
    let given = run.and_then(|run| run.started_with.resources.clone());
    given.or_else(|| container.resources.clone())
}

fn user(run: &Run) -> Option<ContainerUser> {
    let user = run.started_with.user.as_ref()?;
    let groups = [user.gid].into_iter().chain(user.groups.iter().copied());
    let mut groups: Vec<i64> = groups.map(i64::from).collect();
    groups.sort_unstable();
    groups.dedup();
    Some(ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: Some(groups),
        }),
    })
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let mount = |mount: &VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
    };
    Some(mounts.iter().map(mount).collect())
}

fn has_inits(view: &View<'_>) -> bool {
    rules::containers(view.pod).any(|(role, _)| role != Role::Main)
}

/// Why a container that is to run does not.
fn obstacle(
    view: &View<'_>,
    role: Role,
    container: &Container,
    history: &ContainerHistory,
) -> Option<(String, String)> {
    match rules::fate(view.pod, role, container, view.history, view.now) {
        Fate::StartFailed { .. } => {
            let message = history.finished().and_then(|finished| finished.message.clone());
            return Some(("RunContainerError".to_owned(), message.unwrap_or_default()));
        }
        Fate::Resting { seconds, .. } => {
            return Some((
                "CrashLoopBackOff".to_owned(),
                crash_loop(view, container, seconds),
            ));
        }
        Fate::Ended { .. } | Fate::Running => return None,
        Fate::Unstarted | Fate::Due => {}
    }
    if let Some(trouble) = &history.trouble {
        return Some((trouble.reason.clone(), trouble.message.clone()));
    }
    let ImageState::Missing {
        reason,
        message,
        since,
        ..
    } = &history.image
    else {
        return None;
    };
    let is_fresh = view.now < later(*since, START_ERROR_SECONDS);
    if reason != "ErrImagePull" || is_fresh {
        return Some((reason.clone(), message.clone()));
    }
    let image = container.image.as_deref().unwrap_or_default();
    Some((
        "ImagePullBackOff".to_owned(),
        format!("Back-off pulling image \"{image}\": ErrImagePull: {message}"),
    ))
}

fn crash_loop(view: &View<'_>, container: &Container, seconds: i64) -> String {
    format!(
        "back-off {} restarting failed container={} pod={}",
        go_duration(seconds),
        container.name,
        pod_label(view.pod)
    )
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(reason.to_owned()),
        message,
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

fn terminated(view: &View<'_>, ended: &Termination) -> ContainerStateTerminated {
    let containers = rules::containers(view.pod).count();
    ContainerStateTerminated {
        container_id: Some(container_id(view, &ended.id)),
        exit_code: ended.exit_code,
        reason: Some(ended.reason.clone()),
        message: ended
            .message
            .clone()
            .map(|message| termination::cut(message, containers)),
        started_at: ended.started_at.map(Time),
        finished_at: Some(Time(ended.finished_at)),
        signal: None,
    }
}

fn container_id(view: &View<'_>, id: &str) -> String {
    format!(
        "flotilla://{}_{id}",
        view.pod.metadata.uid.as_deref().unwrap_or_default()
    )
}
