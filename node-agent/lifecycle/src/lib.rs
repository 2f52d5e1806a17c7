//! What a kubelet decides, as plain functions: desired pod, history and time in; next steps and status out.
//!
//! [`plan`] is the whole state machine. The agent carries out its steps, tells [`History`] what came of them, and
//! asks again. Nothing here reads a clock, touches a disk, or knows how containers are made.

mod backoff;
mod environment;
mod expansion;
mod files;
mod history;
mod launch;
mod notices;
mod plan;
mod resources;
mod rules;
mod service_variables;
mod signals;
mod status;

pub use backoff::Backoff;
pub use environment::{EnvironmentError, Facts, References};
pub use files::{hosts_file, resolver_file};
pub use history::{ContainerHistory, History, ImageState, Run, Sandbox, Stop, Termination, Trouble};
pub use launch::{ImageDefaults, Launch, LaunchError, check_non_root, hostname, launch};
pub use notices::{Notice, notices};
pub use plan::{Plan, Step, View, plan};
pub use resources::{CgroupLimits, Quantities, container_limits, pod_limits};
pub use service_variables::{ServiceAddress, service_variables};

use k8s_openapi::api::core::v1::Pod;

/// `web-x_default(uid)`, as kubelet names a pod in messages.
pub fn pod_label(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!(
        "{}_{}({})",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default()
    )
}
