//! Decides what a StatefulSet does next.
//!
//! Pure: reads what was observed, returns steps. With the policy `OrderedReady` there is at most one step that makes
//! or removes a pod, and none while a pod before it is not available; with `Parallel` only updates wait for each other.
//!
//! *Guarantees*: a pod is only made for an ordinal that has none, and a pod that is being deleted still has its
//! ordinal.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::claims::Claims;
use super::{identity, status};
use crate::pods::{self, Availability};

/// The names of the two revisions that matter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revisions<'a> {
    /// Of which pods were before the newest change.
    pub(crate) current: &'a str,
    /// Of which they shall be.
    pub(crate) update: &'a str,
}

/// All that a plan looks at.
pub(crate) struct Observed<'a> {
    pub(crate) set: &'a StatefulSet,
    /// The pods that the set controls.
    pub(crate) pods: &'a [Arc<Pod>],
    /// The claims of its namespace.
    pub(crate) claims: Claims<'a>,
    pub(crate) revisions: Revisions<'a>,
    /// The template of the current revision.
    pub(crate) current: &'a PodTemplateSpec,
    pub(crate) now: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Make the claims, then the pod.
    Create {
        /// The pod.
        pod: Box<Pod>,
        /// The claims that it lacks.
        claims: Vec<PersistentVolumeClaim>,
    },
    /// Make claims of a pod that waits for them.
    CreateClaims {
        /// The pod's name.
        pod: String,
        /// The claims.
        claims: Vec<PersistentVolumeClaim>,
    },
    /// Give a pod back the labels of its ordinal.
    Correct(Arc<Pod>, i32),
    /// Give a claim the owner that the retention policy asks for.
    Own(Box<PersistentVolumeClaim>),
    /// Remove a pod.
    Delete(Arc<Pod>, Why),
}

/// Why a pod is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It has failed and shall be made anew.
    Failed,
    /// It has ended and shall be made anew.
    Succeeded,
    /// Its ordinal is not wanted.
    Condemned,
    /// It is of another revision than the wanted one.
    Outdated,
}

/// The next steps, in order.
pub(crate) fn plan(observed: &Observed<'_>) -> Vec<Step> {
    if observed.set.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let mut draft = Draft::of(observed);
    if draft.bring_up() == Flow::Stop {
        return draft.steps;
    }
    if draft.scale_down() == Flow::Stop {
        return draft.steps;
    }
    draft.update();
    draft.steps
}

/// Whether the plan goes on after a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

struct Draft<'a> {
    observed: &'a Observed<'a>,
    /// The wanted ordinals with their pods.
    replicas: Vec<(i32, Option<&'a Arc<Pod>>)>,
    /// Pods whose ordinals are not wanted, the highest first.
    condemned: Vec<(i32, &'a Arc<Pod>)>,
    is_ordered: bool,
    steps: Vec<Step>,
}

impl<'a> Draft<'a> {
    fn of(observed: &'a Observed<'a>) -> Draft<'a> {
        let set = observed.set;
        let wanted = identity::wanted(set);
        let mut condemned = Vec::new();
        let mut replicas: Vec<(i32, Option<&Arc<Pod>>)> =
            wanted.clone().map(|ordinal| (ordinal, None)).collect();
        for pod in observed.pods {
            let Some(ordinal) = identity::ordinal_of(set, pod) else {
                continue;
            };
            let slot = usize::try_from(ordinal - wanted.start).ok();
            match slot.and_then(|slot| replicas.get_mut(slot)) {
                Some(replica) => replica.1 = Some(pod),
                None => condemned.push((ordinal, pod)),
            }
        }
        condemned.sort_by_key(|(ordinal, _)| -*ordinal);
        let policy = set
            .spec
            .as_ref()
            .and_then(|spec| spec.pod_management_policy.as_deref());
        Draft {
            observed,
            replicas,
            condemned,
            is_ordered: policy != Some("Parallel"),
            steps: Vec::new(),
        }
    }

    /// Where the plan stops for pods that come up in order, and goes on for those that come up together.
    fn wait(&self) -> Flow {
        if self.is_ordered { Flow::Stop } else { Flow::Go }
    }

    /// Makes what is missing, and replaces what has ended.
    fn bring_up(&mut self) -> Flow {
        for (ordinal, pod) in self.replicas.clone() {
            let flow = match pod {
                None => self.create(ordinal),
                Some(pod) => self.keep_up(ordinal, pod),
            };
            if flow == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::Go
    }

    fn create(&mut self, ordinal: i32) -> Flow {
        let observed = self.observed;
        if !observed.claims.are_leaving(observed.set, ordinal) {
            let (template, revision) = self.template_of(ordinal);
            let pod = identity::pod(observed.set, template, revision, ordinal);
            self.steps.push(Step::Create {
                pod: Box::new(pod),
                claims: observed.claims.missing(observed.set, ordinal),
            });
        }
        self.wait()
    }

    /// Below the partition of an unfinished rolling update new pods are of the current revision.
    fn template_of(&self, ordinal: i32) -> (&'a PodTemplateSpec, &'a str) {
        let Observed { set, revisions, .. } = self.observed;
        let spec = set.spec.as_ref();
        let template = spec.map_or(self.observed.current, |spec| &spec.template);
        let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
        let on_delete = strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete"));
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let kept = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None => set
                .status
                .as_ref()
                .and_then(|status| status.current_replicas)
                .unwrap_or(0),
        };
        let below = ordinal < identity::wanted(set).start.saturating_add(kept);
        if !on_delete && below && revisions.current != revisions.update {
            (self.observed.current, revisions.current)
        } else {
            (template, revisions.update)
        }
    }

    fn keep_up(&mut self, ordinal: i32, pod: &Arc<Pod>) -> Flow {
        let observed = self.observed;
        if pods::is_finished(pod) {
            let why = match pods::phase(pod) {
                "Failed" => Why::Failed,
                _ => Why::Succeeded,
            };
            if !pods::is_deleting(pod) {
                self.steps.push(Step::Delete(Arc::clone(pod), why));
            }
            return self.wait();
        }
        let missing = observed.claims.missing(observed.set, ordinal);
        if pods::phase(pod) == "Pending" && !missing.is_empty() && !pods::is_deleting(pod) {
            self.steps.push(Step::CreateClaims {
                pod: identity::pod_name(observed.set, ordinal),
                claims: missing,
            });
        }
        if self.is_unavailable(pod) && self.is_ordered {
            return Flow::Stop;
        }
        if !pods::is_deleting(pod) && identity::correct(&mut (**pod).clone(), ordinal) {
            self.steps.push(Step::Correct(Arc::clone(pod), ordinal));
        }
        self.own_claims(ordinal, pod);
        Flow::Go
    }

    fn own_claims(&mut self, ordinal: i32, pod: &Pod) {
        let observed = self.observed;
        let misowned = observed.claims.misowned(observed.set, pod, ordinal);
        self.steps
            .extend(misowned.into_iter().map(|claim| Step::Own(Box::new(claim))));
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        let seconds = status::min_ready_seconds(self.observed.set);
        pods::is_deleting(pod)
            || pods::phase(pod) != "Running"
            || pods::availability(pod, seconds, self.observed.now) != Availability::Now
    }

    /// Removes pods that are not wanted, the highest ordinal first. In order, one that is unavailable holds the others
    /// up, unless it is the only trouble that there is.
    fn scale_down(&mut self) -> Flow {
        // First of all their claims: a claim that is to go with its pod must say so before the pod goes.
        for (ordinal, pod) in self.condemned.clone() {
            self.own_claims(ordinal, pod);
        }
        let first_trouble = self.first_unavailable().map(Arc::clone);
        for (_, pod) in self.condemned.clone() {
            let is_first = first_trouble
                .as_ref()
                .is_some_and(|first| Arc::ptr_eq(first, pod));
            if pods::is_deleting(pod) {
                if self.is_ordered {
                    return Flow::Stop;
                }
                continue;
            }
            if self.is_ordered && self.is_unavailable(pod) && !is_first {
                return Flow::Stop;
            }
            self.steps.push(Step::Delete(Arc::clone(pod), Why::Condemned));
            if self.is_ordered {
                return Flow::Stop;
            }
        }
        Flow::Go
    }

    fn first_unavailable(&self) -> Option<&'a Arc<Pod>> {
        let wanted = self.replicas.iter().filter_map(|(_, pod)| *pod);
        let condemned = self.condemned.iter().rev().map(|(_, pod)| *pod);
        wanted.chain(condemned).find(|pod| self.is_unavailable(pod))
    }

    /// Replaces pods of other revisions, the highest ordinal first, as many at a time as may be unavailable.
    fn update(&mut self) {
        let strategy = self
            .observed
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.update_strategy.as_ref());
        if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete")) {
            return;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let share = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let mut left = unavailable_max(share, self.replicas.len());
        let kept = usize::try_from(partition).unwrap_or(0).min(self.replicas.len());
        for (_, pod) in self.replicas[kept..].iter().rev() {
            let is_outdated = pod.is_some_and(|pod| {
                identity::revision_of_pod(pod) != self.observed.revisions.update
                    && !pods::is_deleting(pod)
                    && !pods::is_finished(pod)
            });
            match pod {
                Some(pod) if is_outdated => {
                    self.steps.push(Step::Delete(Arc::clone(pod), Why::Outdated));
                    left -= 1;
                }
                Some(pod) if !self.is_unavailable(pod) => {}
                Some(_) | None => left -= 1,
            }
            if left == 0 {
                return;
            }
        }
    }
}

/// How many pods may be unavailable during an update: at least one.
fn unavailable_max(share: Option<&IntOrString>, replicas: usize) -> usize {
    let found = match share {
        None => 1,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(1),
        Some(IntOrString::String(text)) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
            percent.saturating_mul(replicas) / 100
        }
    };
    found.max(1)
}
