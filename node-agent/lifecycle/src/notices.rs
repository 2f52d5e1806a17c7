//! Events that follow from a change of status.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

use crate::admission::Rejection;
use crate::pod_label;
use crate::rules::{self, Role};

/// An event about a pod or one of its containers, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Warning rather than Normal.
    pub is_warning: bool,
    /// Kubernetes' reason, such as `BackOff`.
    pub reason: Cow<'static, str>,
    /// Kubelet's words.
    pub message: String,
    /// `spec.containers{web}`, or empty for the pod itself.
    pub field_path: String,
}

impl Notice {
    /// An event about the container called `container`.
    pub fn of_container(
        pod: &Pod,
        container: &str,
        is_warning: bool,
        reason: &'static str,
        message: String,
    ) -> Notice {
        let is_main = |(role, c): (Role, &Container)| role == Role::Main && c.name == container;
        let is_ephemeral = || rules::ephemeral(pod).iter().any(|c| c.name == container);
        let list = if rules::containers(pod).any(is_main) {
            "containers"
        } else if is_ephemeral() {
            "ephemeralContainers"
        } else {
            "initContainers"
        };
        Notice {
            is_warning,
            reason: Cow::Borrowed(reason),
            message,
            field_path: format!("spec.{list}{{{container}}}"),
        }
    }

    /// The node does not take the pod.
    pub fn rejected(rejection: &Rejection) -> Notice {
        Notice {
            is_warning: true,
            reason: Cow::Owned(rejection.reason.clone()),
            message: rejection.message.clone(),
            field_path: String::new(),
        }
    }

    /// An event about the pod itself.
    pub fn of_pod(is_warning: bool, reason: &'static str, message: String) -> Notice {
        Notice {
            is_warning,
            reason: Cow::Borrowed(reason),
            message,
            field_path: String::new(),
        }
    }
}

/// The events that the step from one status to the next is worth.
pub fn notices(pod: &Pod, before: &PodStatus, after: &PodStatus) -> Vec<Notice> {
    let mut notices = Vec::new();
    let ephemeral = rules::ephemeral(pod);
    let ordinary = rules::containers(pod).map(|(_, container)| container);
    for container in ordinary.chain(&ephemeral) {
        let reason = waiting_reason(after, &container.name);
        if reason.is_none() || reason == waiting_reason(before, &container.name) {
            continue;
        }
        let image = container.image.as_deref().unwrap_or_default();
        let name = container.name.as_str();
        match reason {
            Some("CrashLoopBackOff") => {
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    pod_label(pod)
                );
                notices.push(Notice::of_container(pod, name, true, "BackOff", message));
            }
            Some("ImagePullBackOff") => {
                let message = format!("Back-off pulling image \"{image}\"");
                notices.push(Notice::of_container(pod, name, false, "BackOff", message));
                notices.push(Notice::of_container(
                    pod,
                    name,
                    true,
                    "Failed",
                    "Error: ImagePullBackOff".to_owned(),
                ));
            }
            _ => {}
        }
    }
    notices
}

fn waiting_reason<'a>(status: &'a PodStatus, container: &str) -> Option<&'a str> {
    let all = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .chain(&status.ephemeral_container_statuses)
        .flatten();
    let of = all
        .into_iter()
        .find(|status: &&ContainerStatus| status.name == container)?;
    of.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}
