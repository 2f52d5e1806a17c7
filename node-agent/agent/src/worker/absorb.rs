//! Brings the pod's history in line with what the runtime knows.

use flotilla_lifecycle::{History, Run, StartedWith, find_container};
use flotilla_runtime::ContainerState;
use k8s_openapi::api::core::v1::Pod;

/// Notes a container that the runtime knows: a start whose record was lost with the agent, or an end, whose exit code
/// it returns.
pub(super) fn absorb(pod: &Pod, history: &mut History, container: &ContainerState) -> Option<i32> {
    let known = find_container(pod, &container.name)?;
    let past = history.container_mut(&container.name);
    if past.attempts <= container.attempt {
        past.attempts = container.attempt;
        past.started(Run {
            id: container.id.clone(),
            started_at: container.started_at,
            image: known.image.clone().unwrap_or_default(),
            image_id: String::new(),
            stop_signal: None,
            finished: None,
            started_with: StartedWith::default(),
        });
        history.expect_post_start(&known);
    }
    let past = history.container_mut(&container.name);
    match container.finished? {
        exit if exit.unknown => {
            past.lost(exit.finished_at);
            None
        }
        exit => past
            .exited(&container.id, exit.code, exit.oom_killed, exit.finished_at)
            .then_some(exit.code),
    }
}
