//! ReplicaSet and ReplicationController, seen as one.

use flotilla_api::selector::LabelSelector;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use flotilla_resources::TypedObject;

use super::plan::PodSet;
use super::status::{SetCondition, SetStatus};
use crate::labels;

/// A kind whose objects keep a number of equal pods alive.
pub(crate) trait Replicated: TypedObject {
    /// The name under which its events appear.
    const COMPONENT: &'static str;
    /// What the plan needs to know.
    fn view(&self) -> PodSet<'_>;
    /// The status as it was last written.
    fn status(&self) -> SetStatus;
    /// Replaces the status.
    fn set_status(&mut self, status: SetStatus);
}

impl Replicated for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";

    fn view(&self) -> PodSet<'_> {
        let spec = self.spec.as_ref();
        PodSet {
            meta: &self.metadata,
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0),
            selector: labels::selector(spec.map(|spec| &spec.selector)),
            template: spec.and_then(|spec| spec.template.as_ref()),
        }
    }

    fn status(&self) -> SetStatus {
        let Some(status) = &self.status else {
            return SetStatus::default();
        };
        let conditions = status.conditions.iter().flatten().map(|condition| SetCondition {
            type_: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            last_transition: condition.last_transition_time.as_ref().map(|time| time.0),
        });
        SetStatus {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas.unwrap_or(0),
            observed_generation: status.observed_generation,
            conditions: conditions.collect(),
        }
    }

    fn set_status(&mut self, status: SetStatus) {
        let conditions = status
            .conditions
            .into_iter()
            .map(|condition| ReplicaSetCondition {
                type_: condition.type_,
                status: condition.status,
                reason: condition.reason,
                message: condition.message,
                last_transition_time: condition.last_transition.map(Time),
            });
        self.status = Some(ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: count(status.fully_labeled),
            ready_replicas: count(status.ready),
            available_replicas: count(status.available),
            terminating_replicas: Some(status.terminating),
            observed_generation: status.observed_generation,
            conditions: listed(conditions.collect()),
        });
    }
}

impl Replicated for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";

    fn view(&self) -> PodSet<'_> {
        let spec = self.spec.as_ref();
        let selector = spec
            .and_then(|spec| spec.selector.as_ref())
            .filter(|selector| !selector.is_empty());
        PodSet {
            meta: &self.metadata,
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0),
            selector: selector.map_or_else(LabelSelector::nothing, |selector| {
                LabelSelector::from_map(Some(selector))
            }),
            template: spec.and_then(|spec| spec.template.as_ref()),
        }
    }

    fn status(&self) -> SetStatus {
        let Some(status) = &self.status else {
            return SetStatus::default();
        };
        let conditions = status.conditions.iter().flatten().map(|condition| SetCondition {
            type_: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            last_transition: condition.last_transition_time.as_ref().map(|time| time.0),
        });
        SetStatus {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: 0,
            observed_generation: status.observed_generation,
            conditions: conditions.collect(),
        }
    }

    fn set_status(&mut self, status: SetStatus) {
        let conditions = status
            .conditions
            .into_iter()
            .map(|condition| ReplicationControllerCondition {
                type_: condition.type_,
                status: condition.status,
                reason: condition.reason,
                message: condition.message,
                last_transition_time: condition.last_transition.map(Time),
            });
        self.status = Some(ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: count(status.fully_labeled),
            ready_replicas: count(status.ready),
            available_replicas: count(status.available),
            observed_generation: status.observed_generation,
            conditions: listed(conditions.collect()),
        });
    }
}

/// Kubernetes leaves counts of zero out.
fn count(value: i32) -> Option<i32> {
    (value != 0).then_some(value)
}

fn listed<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
