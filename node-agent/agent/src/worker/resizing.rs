//! Gives a running pod other limits, if the node has room for them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use flotilla_api::amounts::{Amounts, Demand};
use flotilla_lifecycle::{Notice, Resize, container_limits, is_resize_wanted, judge_resize, pod_limits};
use flotilla_report::report;
use k8s_openapi::api::core::v1::Pod;

use super::Worker;
use super::steps::resources;
use crate::checkpoint::Checkpoint;

/// What the pods of this node were promised, by uid.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<BTreeMap<String, Amounts>>);

impl Claims {
    fn claim(&self, uid: &str, amounts: Amounts) {
        self.lock().insert(uid.to_owned(), amounts);
    }

    /// The pod needs nothing any more.
    pub(super) fn release(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn of_others(&self, uid: &str) -> Amounts {
        let mut sum = Amounts::default();
        let claims = self.lock();
        let others = claims.iter().filter(|(of, _)| *of != uid);
        others.for_each(|(_, amounts)| sum.add(amounts));
        sum
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Amounts>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Worker {
    /// Decides whether the size that the pod asks for is given, and says so when it is not.
    pub(super) fn judge_resize(&mut self) {
        let Checkpoint { pod, history, .. } = &mut self.checkpoint;
        let claims = &self.surroundings.claims;
        if !is_resize_wanted(pod, history) {
            history.resize = Resize::default();
            claims.claim(&self.uid, Demand::of(pod).requests);
            return;
        }
        let others = claims.of_others(&self.uid);
        let hold = judge_resize(pod, &self.surroundings.allocatable, &others).err();
        if hold.is_none() {
            claims.claim(&self.uid, Demand::of(pod).requests);
        }
        let before = std::mem::replace(&mut history.resize.hold, hold.clone());
        if let Some(hold) =
            hold.filter(|hold| before.as_ref().is_none_or(|before| before.reason != hold.reason))
        {
            let reason = match hold.reason.as_str() {
                "Infeasible" => "ResizeInfeasible",
                _ => "ResizeDeferred",
            };
            self.tell(Notice::of_pod(true, reason, hold.message));
        }
    }

    /// Carries the resize out. False: the kernel refused, so wait before the next try.
    pub(super) async fn resize(&mut self) -> bool {
        let pod = self.checkpoint.pod.clone();
        let done = self
            .surroundings
            .machine
            .resize(&self.uid, self.sizes(&pod), resources(pod_limits(&pod)));
        match done.await {
            Ok(()) => {
                self.checkpoint.history.resized(&pod);
                let told = "Pod resize completed".to_owned();
                self.tell(Notice::of_pod(false, "ResizeCompleted", told));
                true
            }
            Err(error) => {
                let message = report(&error);
                tracing::warn!(
                    pod = self.uid,
                    error = report(&error),
                    "a pod cannot be resized yet"
                );
                if self.checkpoint.history.resize.failure.as_ref() != Some(&message) {
                    self.tell(Notice::of_pod(true, "ResizeError", message.clone()));
                }
                self.checkpoint.history.resize.failure = Some(message);
                false
            }
        }
    }

    /// The limits of the containers that run.
    fn sizes(&self, pod: &Pod) -> Vec<(String, flotilla_runtime::Resources)> {
        let spec = pod.spec.iter();
        let all = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        let size = |container: &k8s_openapi::api::core::v1::Container| {
            let past = self.checkpoint.history.containers.get(&container.name)?;
            let run = past.run.as_ref().filter(|_| past.is_running())?;
            Some((run.id.clone(), resources(container_limits(container))))
        };
        all.filter_map(size).collect()
    }
}
