//! What the scheduler says about pods: events, and the `PodScheduled` condition.
//!
//! Reports never hold up the placing of pods: conditions are written by one task of their own, and where it lags behind
//! a report is dropped, because the next attempt makes another.

use std::collections::HashMap;

use flotilla_resources::{EventRecord, EventType, Part, Resources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::place::Refusals;

/// Enough for a large Deployment that fits nowhere.
const QUEUE_MAX: usize = 4096;

/// One condition to write.
struct Unplaced {
    namespace: String,
    name: String,
    uid: String,
    message: String,
}

/// Takes reports.
pub(crate) struct Reports {
    resources: Resources,
    conditions: mpsc::Sender<Unplaced>,
}

/// Starts the task that writes conditions.
pub(crate) fn start(resources: &Resources, tracker: &TaskTracker, shutdown: &CancellationToken) -> Reports {
    let (conditions, receiver) = mpsc::channel(QUEUE_MAX);
    let (writer, shutdown) = (resources.clone(), shutdown.clone());
    tracker.spawn(async move {
        // A condition that is not written is written after the next attempt.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = write_conditions(&writer, receiver) => {}
        }
    });
    Reports {
        resources: resources.clone(),
        conditions,
    }
}

impl Reports {
    /// The pod has a node.
    pub(crate) fn bound(&self, pod: &Pod, node: &str) {
        let (namespace, name) = place(pod);
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        self.event(pod, EventType::Normal, "Scheduled", message);
    }

    /// No node would do.
    pub(crate) fn unplaced(&self, pod: &Pod, refusals: &Refusals) {
        let message = refusals.message();
        if told(pod) == Some(&message) {
            return;
        }
        self.event(pod, EventType::Warning, "FailedScheduling", message.clone());
        let (namespace, name) = place(pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let report = Unplaced {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid,
            message,
        };
        if self.conditions.try_send(report).is_err() {
            tracing::debug!("a condition of an unschedulable pod was dropped until its next attempt");
        }
    }

    fn event(&self, pod: &Pod, type_: EventType, reason: &str, message: String) {
        self.resources.record_event(EventRecord {
            regarding: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                namespace: pod.metadata.namespace.clone(),
                uid: pod.metadata.uid.clone(),
                resource_version: pod.metadata.resource_version.clone(),
                field_path: None,
            },
            type_,
            reason: reason.to_owned(),
            message,
            component: "default-scheduler".to_owned(),
            host: None,
        });
    }
}

impl Refusals {
    /// In Kubernetes' words.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        if let Some(obstacle) = &self.obstacle {
            return format!("0/{} nodes are available: {obstacle}.", self.nodes);
        }
        let mut reasons: Vec<String> = self
            .counts
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        reasons.sort();
        format!("0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

fn place(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

/// What the pod's condition says already.
fn told(pod: &Pod) -> Option<&String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled")?;
    condition.message.as_ref().filter(|_| condition.status == "False")
}

async fn write_conditions(resources: &Resources, mut reports: mpsc::Receiver<Unplaced>) {
    let mut batch = Vec::new();
    while reports.recv_many(&mut batch, QUEUE_MAX).await > 0 {
        // Of several reports about one pod only the last is true.
        let latest: HashMap<String, Unplaced> = batch
            .drain(..)
            .map(|report| (report.uid.clone(), report))
            .collect();
        for report in latest.into_values() {
            write_condition(resources, &report).await;
        }
    }
}

async fn write_condition(resources: &Resources, report: &Unplaced) {
    let change = |pod: &mut Pod| {
        let waits = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .unwrap_or_default()
            .is_empty();
        let same = pod.metadata.uid.as_deref() == Some(&report.uid);
        same && waits && set_unschedulable(pod.status.get_or_insert_default(), &report.message)
    };
    if let Err(status) = resources
        .modify::<Pod>(&report.namespace, &report.name, Part::Status, change)
        .await
    {
        tracing::warn!(
            error = flotilla_report::report(&status),
            "the condition of an unschedulable pod could not be written"
        );
    }
}

fn set_unschedulable(status: &mut PodStatus, message: &str) -> bool {
    const TYPE: &str = "PodScheduled";
    let conditions = status.conditions.get_or_insert_default();
    let standing = conditions
        .iter()
        .find(|condition| condition.type_ == TYPE)
        .cloned();
    let since = standing.as_ref().filter(|standing| standing.status == "False");
    let since = since.and_then(|standing| standing.last_transition_time.clone());
    let now = Timestamp::from_second(Timestamp::now().as_second())
        .ok()
        .map(Time);
    let wanted = PodCondition {
        type_: TYPE.to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: since.or(now),
        ..PodCondition::default()
    };
    if standing.as_ref() == Some(&wanted) {
        return false;
    }
    conditions.retain(|condition| condition.type_ != TYPE);
    conditions.push(wanted);
    true
}
