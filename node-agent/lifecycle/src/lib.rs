//! What a kubelet decides, as plain functions: desired pod, history and time in; next steps and status out.
//!
//! [`plan`] is the whole state machine. The agent carries out its steps, tells [`History`] what came of them, and
//! asks again. Nothing here reads a clock, touches a disk, or knows how containers are made.

pub mod admission;
mod backoff;
mod environment;
mod expansion;
mod files;
mod handlers;
mod history;
mod hooks;
mod images;
mod launch;
mod notices;
mod permits;
mod plan;
pub mod pressure;
mod probes;
pub mod reserve;
mod resize;
mod resources;
mod rules;
mod service_variables;
mod signals;
mod status;
mod stopping;
mod termination;
mod volumes;

pub use backoff::Backoff;
pub use environment::{EnvironmentError, Facts, References, field_value, resource_value};
pub use expansion::expand as expand_variables;
pub use files::{host_network_hosts_file, hosts_file, resolver_file};
pub use handlers::{Check, HandlerError, HttpCheck, host_port};
pub use history::{
    ContainerHistory, Ended, History, ImageState, PostStart, Run, RunUser, Sandbox, StartedWith, Stop,
    Termination, Trouble,
};
pub use hooks::{HookKind, WantedHook, hook_failure, wanted_hooks};
pub use images::{PullPolicy, pull_policy};
pub use launch::{ImageDefaults, Launch, LaunchError, check_non_root, hostname, kernel_hostname, launch};
pub use notices::{Notice, notices};
pub use permits::Permits;
pub use plan::{Plan, Step, View, plan};
pub use probes::{
    ProbeKind, ProbeOutcome, ProbeResults, Tally, WantedProbe, pause, period, timeout, wanted_probes,
};
pub use resize::{Hold, Resize, allocated, is_resize_wanted, judge_resize};
pub use resources::{CgroupLimits, Quantities, container_limits, pod_limits};
pub use rules::find_container;
pub use service_variables::{ServiceAddress, service_variables};
pub use stopping::{Begin, Stopping};
pub use termination::{FALLBACK_LINES_MAX, MessagePolicy, fallback_message, file_message, message_policy};
pub use volumes::Volumes;

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
