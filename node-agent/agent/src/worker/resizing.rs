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
        match self.give(&pod).await {
            Ok(()) => {
                self.checkpoint.history.resized(&pod);
                let told = "Pod resize completed".to_owned();
                self.tell(Notice::of_pod(false, "ResizeCompleted", told));
                true
            }
            Err(message) => {
                tracing::warn!(pod = self.uid, error = message, "a pod cannot be resized yet");
                if self.checkpoint.history.resize.failure.as_ref() != Some(&message) {
                    self.tell(Notice::of_pod(true, "ResizeError", message.clone()));
                }
                self.checkpoint.history.resize.failure = Some(message);
                false
            }
        }
    }

    async fn give(&self, pod: &Pod) -> Result<(), String> {
        let machine = &self.surroundings.machine;
        let sizes = self.sizes(pod);
        let usage = machine.usage(&self.uid).unwrap_or_default();
        for (id, size) in &sizes {
            let used = usage
                .containers
                .get(id)
                .map_or(0, |usage| usage.working_set_bytes);
            check_shrinking(id, size, used)?;
        }
        let done = machine.resize(&self.uid, sizes, self.pod_resources(pod));
        done.await.map_err(|error| report(&error))
    }

    /// The limits of the pod as a whole.
    pub(super) fn pod_resources(&self, pod: &Pod) -> flotilla_runtime::Resources {
        flotilla_runtime::Resources {
            pids: self.surroundings.permits.pids_max,
            ..resources(pod_limits(pod))
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

/// The kernel would kill a container that has more than it may; kubelet waits until it has less, in these words.
fn check_shrinking(id: &str, size: &flotilla_runtime::Resources, used: u64) -> Result<(), String> {
    match size.memory_limit.and_then(|limit| u64::try_from(limit).ok()) {
        Some(limit) if limit < used => {
            let name = id.rsplit_once('-').map_or(id, |(name, _)| name);
            Err(format!(
                "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
            ))
        }
        _ => Ok(()),
    }
}
