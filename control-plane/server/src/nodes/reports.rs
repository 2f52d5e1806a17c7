//! Writes down what an agent reports of its pods, and acknowledges it once it is stored.

use std::sync::Arc;

use flotilla_api::{Reason, Status as ApiStatus};
use flotilla_proto::node::{
    Ack, EventReport, MirrorPod, PodGone, PodRemoved, PodReport, server_message::Kind as Said,
};
use flotilla_resources::{DeleteOptions, EventRecord, EventType, Part, Resources};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::{Assignments, Outbox, mirrors, say};

/// Reports of one node that are written at once; an agent has one under way per pod.
const AT_ONCE: usize = 64;

/// The reports of one subscribed node.
pub(super) struct Reports {
    assignments: Arc<Assignments>,
    node: String,
    outbox: Outbox,
    tracker: TaskTracker,
    slots: Arc<Semaphore>,
}

impl Reports {
    pub(super) fn new(
        assignments: Arc<Assignments>,
        node: &str,
        outbox: Outbox,
        tracker: TaskTracker,
    ) -> Self {
        Self {
            assignments,
            node: node.to_owned(),
            outbox,
            tracker,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Stores a pod's status.
    pub(super) async fn pod(&self, report: PodReport) -> Result<(), Status> {
        let status: PodStatus = serde_json::from_slice(&report.status_json)
            .map_err(|error| Status::invalid_argument(format!("the pod's status is malformed: {error}")))?;
        let (resources, node) = (self.assignments.resources.clone(), self.node.clone());
        let removed = PodRemoved {
            namespace: report.namespace,
            name: report.name,
            uid: report.uid,
        };
        let work = async move {
            let changed = resources
                .modify::<Pod>(&removed.namespace, &removed.name, Part::Status, |pod| {
                    is_same(pod, &removed.uid, &node) && take_over(pod, &status)
                })
                .await?;
            let exists = changed.is_some()
                || exists(&resources, &removed.namespace, &removed.name, |pod| {
                    is_same(pod, &removed.uid, &node)
                })
                .await?;
            Ok((!exists).then_some(removed))
        };
        self.spawn(report.sequence, work).await
    }

    /// Removes the object of a pod of this node that has ended after its deletion.
    pub(super) async fn gone(&self, gone: PodGone) -> Result<(), Status> {
        let (resources, node) = (self.assignments.resources.clone(), self.node.clone());
        let work = async move {
            // A pod's node never changes while its uid stays, so what is seen here still holds at the deletion.
            let own = exists(&resources, &gone.namespace, &gone.name, |pod| {
                is_same(pod, &gone.uid, &node)
            });
            if !own.await? {
                return Ok(None);
            }
            let options = DeleteOptions {
                grace_seconds: Some(0),
                uid: Some(gone.uid),
                ..DeleteOptions::default()
            };
            match resources
                .delete_typed::<Pod>(&gone.namespace, &gone.name, &options)
                .await
            {
                Ok(_) => Ok(None),
                Err(status) if matches!(status.reason, Reason::NotFound | Reason::Conflict) => Ok(None),
                Err(status) => Err(status),
            }
        };
        self.spawn(gone.sequence, work).await
    }

    /// Makes the pod that shows a static one.
    pub(super) async fn mirror(&self, mirror: MirrorPod) -> Result<(), Status> {
        let (resources, node) = (self.assignments.resources.clone(), self.node.clone());
        let work = async move {
            mirrors::ensure(&resources, &node, &mirror.pod_json).await?;
            Ok(None)
        };
        self.spawn(mirror.sequence, work).await
    }

    /// Does the work beside the conversation, then acknowledges it; a failure ends the session, and the agent will
    /// report again on its next.
    async fn spawn(
        &self,
        sequence: u64,
        work: impl Future<Output = Result<Option<PodRemoved>, ApiStatus>> + Send + 'static,
    ) -> Result<(), Status> {
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.map_err(|_| Status::internal("the slots are never closed"))?;
        let outbox = self.outbox.clone();
        self.tracker.spawn(async move {
            let _slot = slot;
            let answers = match work.await {
                Ok(removed) => [
                    removed.map(|removed| say(Said::PodRemoved(removed))),
                    Some(say(Said::Ack(Ack { sequence }))),
                ],
                Err(status) => [Some(Err(Status::unavailable(status.message))), None],
            };
            for answer in answers.into_iter().flatten() {
                // An agent that has gone will report again.
                let _ = outbox.send(answer).await;
            }
        });
        Ok(())
    }
}

fn is_same(pod: &Pod, uid: &str, node: &str) -> bool {
    pod.metadata.uid.as_deref() == Some(uid)
        && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

async fn exists(
    resources: &Resources,
    namespace: &str,
    name: &str,
    is_wanted: impl Fn(&Pod) -> bool,
) -> Result<bool, ApiStatus> {
    match resources.get_typed::<Pod>(namespace, name).await {
        Ok(found) => Ok(is_wanted(&found)),
        Err(status) if status.reason == Reason::NotFound => Ok(false),
        Err(status) => Err(status),
    }
}

/// Conditions of the agent's own that are there only while they hold.
const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// Takes over a reported status. Conditions that the agent does not know of stay. False when nothing changed.
fn take_over(pod: &mut Pod, reported: &PodStatus) -> bool {
    let before = pod.status.take().unwrap_or_default();
    let mut status = reported.clone();
    let conditions = status.conditions.get_or_insert_default();
    let foreign: Vec<_> = before
        .conditions
        .iter()
        .flatten()
        .filter(|known| !conditions.iter().any(|condition| condition.type_ == known.type_))
        .filter(|known| !PASSING.contains(&known.type_.as_str()))
        .cloned()
        .collect();
    conditions.extend(foreign);
    let changed = status != before;
    pod.status = Some(status);
    changed
}

/// Takes down an event about a pod of `node`.
pub(super) fn event(resources: &Resources, node: &str, event: EventReport) {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let about_node = event.pod_name.is_empty();
    let regarding = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some(if about_node { "Node" } else { "Pod" }.into()),
        namespace: some(event.namespace),
        name: Some(if about_node {
            node.to_owned()
        } else {
            event.pod_name
        }),
        uid: some(event.pod_uid),
        field_path: some(event.field_path),
        ..ObjectReference::default()
    };
    resources.record_event(EventRecord {
        regarding,
        type_: if event.r#type == "Warning" {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: event.reason,
        message: event.message,
        component: "kubelet".into(),
        host: Some(node.to_owned()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_others_stay_and_passing_ones_go() {
        let status = |types: &[&str]| -> PodStatus {
            let all: Vec<_> = types
                .iter()
                .map(|one| serde_json::json!({"type": one, "status": "True"}))
                .collect();
            serde_json::from_value(serde_json::json!({"conditions": all})).unwrap()
        };
        let mut pod = Pod {
            status: Some(status(&["Ready", "PodResizeInProgress", "example.org/own"])),
            ..Pod::default()
        };
        assert!(take_over(&mut pod, &status(&["Ready"])));
        assert_eq!(pod.status, Some(status(&["Ready", "example.org/own"])));
        assert!(!take_over(&mut pod, &status(&["Ready"])));
    }
}
