//! A pod's row, with its status in one word as Kubernetes' printer finds it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use serde_json::Value;

use crate::builder::{age_cell, name_cell};
use crate::duration;
use crate::kind::Column;

pub(crate) const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text(
        "Ready",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    Column::text("Status", "The aggregate status of the containers in this pod."),
    Column::text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    Column::AGE,
    Column::wide("IP", "The IP address allocated to the pod."),
    Column::wide("Node", "The node that runs the pod."),
    Column::wide(
        "Nominated Node",
        "The node that preemption has chosen for the pod.",
    ),
    Column::wide(
        "Readiness Gates",
        "The pod's own readiness gates that are true, of all.",
    ),
];

pub(crate) fn cells(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let unknown = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&unknown);
    let spec = pod.spec.as_ref();
    let summary = Summary::of(pod, status);
    let ip = status
        .pod_ips
        .as_deref()
        .and_then(<[_]>::first)
        .map(|ip| ip.ip.as_str());
    vec![
        name_cell(&pod.metadata),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.clone().into(),
        summary.restarts_text(now).into(),
        age_cell(&pod.metadata, now),
        or_none(ip.or(status.pod_ip.as_deref())),
        or_none(spec.and_then(|spec| spec.node_name.as_deref())),
        or_none(status.nominated_node_name.as_deref()),
        readiness_gates(pod, status).into(),
    ]
}

fn or_none(text: Option<&str>) -> Value {
    text.filter(|text| !text.is_empty()).unwrap_or("<none>").into()
}

/// What the containers amount to.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Pod, status: &PodStatus) -> Self {
        let spec = pod.spec.as_ref();
        let init = spec
            .and_then(|spec| spec.init_containers.as_deref())
            .unwrap_or_default();
        let containers = spec.map_or(0, |spec| spec.containers.len());
        let own = status.reason.as_deref().filter(|reason| !reason.is_empty());
        let gated = status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("SchedulingGated")
        });
        let reason = if gated {
            Some("SchedulingGated")
        } else {
            own.or(status.phase.as_deref())
        };
        let mut summary = Self {
            ready: 0,
            total: containers + init.iter().filter(|one| is_sidecar(one)).count(),
            reason: reason.unwrap_or_default().to_owned(),
            restarts: 0,
            last_restart: None,
        };
        if !summary.add_init(init, status) || is_true(status, "Initialized") {
            summary.add_containers(init, status);
        }
        summary.mark_deletion(pod, status);
        summary
    }

    fn count_restarts(&mut self, container: &ContainerStatus) {
        self.restarts += container.restart_count;
        let last = container
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        let finished = last.and_then(|last| last.finished_at.as_ref()).map(|time| time.0);
        self.last_restart = self.last_restart.max(finished);
    }

    /// Goes through the init containers; whether one of them still holds up the pod.
    fn add_init(&mut self, specs: &[Container], status: &PodStatus) -> bool {
        for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
            self.count_restarts(container);
            let state = container.state.as_ref();
            let terminated = state.and_then(|state| state.terminated.as_ref());
            let waiting = state.and_then(|state| state.waiting.as_ref());
            let waiting = waiting
                .and_then(|waiting| waiting.reason.as_deref())
                .unwrap_or_default();
            let sidecar = specs
                .iter()
                .any(|spec| spec.name == container.name && is_sidecar(spec));
            if terminated.is_some_and(|terminated| terminated.exit_code == 0) {
                continue;
            }
            if sidecar && container.started == Some(true) {
                self.ready += usize::from(container.ready);
                continue;
            }
            self.reason = match terminated {
                Some(terminated) => format!("Init:{}", ending(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", specs.len()),
            };
            return true;
        }
        false
    }

    fn add_containers(&mut self, init: &[Container], status: &PodStatus) {
        self.restarts = 0;
        self.last_restart = None;
        for container in status.init_container_statuses.iter().flatten() {
            if init
                .iter()
                .any(|spec| spec.name == container.name && is_sidecar(spec))
            {
                self.count_restarts(container);
            }
        }
        let mut has_running = false;
        for container in status.container_statuses.iter().flatten().rev() {
            self.count_restarts(container);
            let state = container.state.as_ref();
            let waiting = state.and_then(|state| state.waiting.as_ref());
            let waiting = waiting
                .and_then(|waiting| waiting.reason.as_deref())
                .unwrap_or_default();
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(terminated) = state.and_then(|state| state.terminated.as_ref()) {
                self.reason = ending(terminated);
            } else if container.ready && state.is_some_and(|state| state.running.is_some()) {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && has_running {
            self.reason = if is_true(status, "Ready") {
                "Running"
            } else {
                "NotReady"
            }
            .to_owned();
        }
    }

    fn mark_deletion(&mut self, pod: &Pod, status: &PodStatus) {
        if pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        if status.reason.as_deref() == Some("NodeLost") {
            self.reason = "Unknown".to_owned();
        } else if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            self.reason = "Terminating".to_owned();
        }
    }

    /// `1 (5s ago)`, or the bare number when nothing is known about the last time.
    fn restarts_text(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!("{} ({} ago)", self.restarts, duration::age(Some(last), now))
            }
            _ => self.restarts.to_string(),
        }
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn is_true(status: &PodStatus, condition: &str) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|one| one.type_ == condition && one.status == "True")
}

fn ending(terminated: &ContainerStateTerminated) -> String {
    match (
        terminated.reason.as_deref().unwrap_or_default(),
        terminated.signal.unwrap_or(0),
    ) {
        ("", 0) => format!("ExitCode:{}", terminated.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Pod, status: &PodStatus) -> String {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.readiness_gates.as_deref())
        .unwrap_or_default();
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| is_true(status, &gate.condition_type))
        .count();
    format!("{open}/{}", gates.len())
}
