//! Decides the next steps of a Deployment: which ReplicaSets to make, scale, annotate and delete.
//!
//! Pure. Follows Kubernetes' deployment controller decision by decision, one move per plan: the next one waits for
//! what the ReplicaSets report about the last. Never deletes a set that has, or may still have, pods.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::size::{self, Bounds, wanted};
use super::status::{self, Sets};
use super::template::{is_of_template, new_set};
use super::{annotations, scale};

/// What the plan is made from.
pub(crate) struct Observed<'a> {
    /// The Deployment.
    pub(crate) deployment: &'a Deployment,
    /// The ReplicaSets that it controls.
    pub(crate) sets: Vec<ReplicaSet>,
    /// Whether pods of older revisions still run or are still ending (only asked of `Recreate`).
    pub(crate) old_pods_run: bool,
    /// The time.
    pub(crate) now: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Make this set.
    Create(ReplicaSet),
    /// Write this set, which had `from` wanted replicas before.
    Update {
        /// The set as it should be.
        set: ReplicaSet,
        /// Its wanted replicas until now.
        from: i32,
    },
    /// Delete this set, which nobody can roll back to any more.
    Delete(ReplicaSet),
}

/// What to do, and what to say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// In order.
    pub(crate) steps: Vec<Step>,
    /// The Deployment's revision annotation, where it has to change.
    pub(crate) revision: Option<String>,
    /// The status to publish.
    pub(crate) status: DeploymentStatus,
    /// After which time to look again although nothing happened.
    pub(crate) recheck: Option<Duration>,
}

/// The next steps.
pub(crate) fn plan(observed: Observed<'_>) -> Plan {
    let Observed {
        deployment,
        sets,
        old_pods_run,
        now,
    } = observed;
    let mut rollout = Rollout::new(deployment, sets, now);
    if deployment.metadata.deletion_timestamp.is_some() {
        return rollout.finish(Saying::Counts);
    }
    status::note_pause(deployment, &mut rollout.status, now);
    let paused = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false);
    if paused || rollout.was_rescaled() {
        rollout.sync_revision(IfAbsent::Leave);
        scale::scale(&mut rollout);
        if paused {
            rollout.drop_history();
        }
        return rollout.finish(Saying::Counts);
    }
    match size::is_recreate(deployment) {
        true => rollout.recreate(old_pods_run),
        false => rollout.roll(),
    }
    rollout.finish(Saying::Progress)
}

#[derive(Clone, Copy, PartialEq)]
enum IfAbsent {
    Create,
    Leave,
}

/// Which part of the status a plan may speak about.
#[derive(Clone, Copy)]
enum Saying {
    Counts,
    Progress,
}

/// A set as observed and as it will be.
pub(crate) struct Member {
    before: ReplicaSet,
    /// The set with the plan's changes.
    pub(crate) set: ReplicaSet,
    created: bool,
    deleted: bool,
}

/// A plan in the making: the sets, changed as the plan goes on.
pub(crate) struct Rollout<'a> {
    pub(crate) deployment: &'a Deployment,
    pub(crate) bounds: Bounds,
    /// All sets, oldest first.
    pub(crate) members: Vec<Member>,
    /// Which of them is of the current template.
    pub(crate) newest: Option<usize>,
    status: DeploymentStatus,
    revision: Option<String>,
    now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Deployment, mut sets: Vec<ReplicaSet>, now: Timestamp) -> Rollout<'a> {
        sets.sort_by(|a, b| age(a).cmp(&age(b)));
        let newest = sets.iter().position(|set| is_of_template(set, deployment));
        let member = |set: ReplicaSet| Member {
            before: set.clone(),
            set,
            created: false,
            deleted: false,
        };
        Rollout {
            deployment,
            bounds: Bounds::of(deployment),
            members: sets.into_iter().map(member).collect(),
            newest,
            status: deployment.status.clone().unwrap_or_default(),
            revision: None,
            now,
        }
    }

    /// The indices of the sets of older templates, oldest first.
    pub(crate) fn old(&self) -> Vec<usize> {
        (0..self.members.len())
            .filter(|index| Some(*index) != self.newest)
            .collect()
    }

    /// The indices of the older sets that want replicas.
    pub(crate) fn active_old(&self) -> Vec<usize> {
        self.old()
            .into_iter()
            .filter(|index| self.wanted(*index) > 0)
            .collect()
    }

    /// The wanted replicas of one set.
    pub(crate) fn wanted(&self, index: usize) -> i32 {
        wanted(&self.members[index].set)
    }

    /// The wanted replicas of all sets.
    pub(crate) fn wanted_total(&self) -> i32 {
        self.members.iter().map(|member| wanted(&member.set)).sum()
    }

    /// Sets a set's size and notes the Deployment's on it.
    pub(crate) fn resize(&mut self, index: usize, replicas: i32) {
        let set = &mut self.members[index].set;
        annotations::set_sizes(set, self.bounds);
        set.spec.get_or_insert_default().replicas = Some(replicas);
    }

    /// [`Self::resize`], unless the set has that size. Says whether it had to change.
    pub(crate) fn resize_if_needed(&mut self, index: usize, replicas: i32) -> bool {
        let changes = self.wanted(index) != replicas;
        if changes {
            self.resize(index, replicas);
        }
        changes
    }

    /// Whether the Deployment was scaled since its sets were.
    fn was_rescaled(&self) -> bool {
        let active = self
            .members
            .iter()
            .map(|member| &member.set)
            .filter(|set| wanted(set) > 0);
        active
            .filter_map(annotations::desired_replicas)
            .any(|desired| desired != self.bounds.replicas)
    }

    fn roll(&mut self) {
        self.sync_revision(IfAbsent::Create);
        if self.grow_newest() || self.shrink_old() {
            return;
        }
        self.drop_history_when_complete();
    }

    fn recreate(&mut self, old_pods_run: bool) {
        self.sync_revision(IfAbsent::Leave);
        let mut scaled_down = false;
        for index in self.active_old() {
            scaled_down |= self.resize_if_needed(index, 0);
        }
        if scaled_down || old_pods_run {
            return;
        }
        if self.newest.is_none() {
            self.sync_revision(IfAbsent::Create);
        }
        self.grow_newest();
        self.drop_history_when_complete();
    }

    /// Brings the newest set towards its size. Says whether it changed.
    fn grow_newest(&mut self) -> bool {
        let Some(newest) = self.newest else { return false };
        let size = self.wanted(newest);
        let target = match size > self.bounds.replicas {
            true => self.bounds.replicas,
            false => size::newest(self.deployment, self.wanted_total(), size),
        };
        self.resize_if_needed(newest, target)
    }

    /// Takes replicas from the older sets, the unhealthy ones first. Says whether there were any to take.
    fn shrink_old(&mut self) -> bool {
        let old = self.active_old();
        let Some(newest) = self.newest.map(|index| &self.members[index].set) else {
            return false;
        };
        if old.is_empty() {
            return false;
        }
        let newest_unavailable = wanted(newest) - size::available(newest);
        let spare = self.wanted_total() - self.bounds.available_min() - newest_unavailable;
        if spare <= 0 {
            return false;
        }
        let cleaned = self.drop_unhealthy(&old, spare);
        self.drop_available(&old) + cleaned > 0
    }

    /// Replicas that are not available cost nothing to lose.
    fn drop_unhealthy(&mut self, old: &[usize], spare: i32) -> i32 {
        let mut dropped = 0;
        for &index in old {
            let size = self.wanted(index);
            let unhealthy = size - size::available(&self.members[index].set);
            let surplus = unhealthy.min(spare - dropped);
            if surplus > 0 {
                self.resize(index, size - surplus);
                dropped += surplus;
            }
        }
        dropped
    }

    fn drop_available(&mut self, old: &[usize]) -> i32 {
        let available: i32 = self
            .members
            .iter()
            .map(|member| size::available(&member.set))
            .sum();
        let surplus = available - self.bounds.available_min();
        let mut dropped = 0;
        for &index in old {
            let size = self.wanted(index);
            let share = size.min(surplus - dropped);
            if share > 0 {
                self.resize(index, size - share);
                dropped += share;
            }
        }
        dropped
    }

    /// Numbers the newest set and copies annotations to it; makes it where that is asked for.
    fn sync_revision(&mut self, if_absent: IfAbsent) {
        let old = self.old();
        let highest = old
            .iter()
            .map(|index| annotations::revision(&self.members[*index].set.metadata))
            .max();
        let next = highest.unwrap_or(0) + 1;
        match self.newest {
            Some(index) => self.refresh_newest(index, next),
            None if if_absent == IfAbsent::Create => self.add_newest(next),
            None => return,
        }
        let Some(newest) = self.newest else { return };
        let revision = annotations::revision(&self.members[newest].set.metadata).to_string();
        if annotations::get(&self.deployment.metadata, annotations::REVISION) != Some(&revision) {
            self.revision = Some(revision);
        }
    }

    fn refresh_newest(&mut self, index: usize, revision: i64) {
        let set = &mut self.members[index].set;
        annotations::inherit(set, self.deployment, revision);
        let min_ready = self
            .deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds);
        let spec = set.spec.get_or_insert_default();
        if spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
            spec.min_ready_seconds = min_ready;
        }
        let name = set.metadata.name.clone().unwrap_or_default();
        let unnoted = status::condition(&self.status, status::PROGRESSING).is_none();
        if unnoted && status::deadline(self.deployment).is_some() {
            self.note_progress("FoundNewReplicaSet", &format!("Found new replica set {name:?}"));
        }
    }

    fn add_newest(&mut self, revision: i64) {
        let mut set = new_set(self.deployment, self.status.collision_count);
        let size = size::newest(self.deployment, self.wanted_total(), 0);
        set.spec.get_or_insert_default().replicas = Some(size);
        annotations::inherit(&mut set, self.deployment, revision);
        annotations::set_sizes(&mut set, self.bounds);
        let name = set.metadata.name.clone().unwrap_or_default();
        self.newest = Some(self.members.len());
        self.members.push(Member {
            before: set.clone(),
            set,
            created: true,
            deleted: false,
        });
        if status::deadline(self.deployment).is_some() {
            self.note_progress(
                "NewReplicaSetCreated",
                &format!("Created new replica set {name:?}"),
            );
        }
    }

    fn note_progress(&mut self, reason: &str, message: &str) {
        status::set_condition(
            &mut self.status,
            status::PROGRESSING,
            "True",
            reason,
            message,
            self.now,
        );
    }

    fn drop_history_when_complete(&mut self) {
        let counted = status::count(self.deployment, &self.status, &self.sets(), self.now);
        if status::is_complete(self.deployment, &counted) {
            self.drop_history();
        }
    }

    /// Deletes the oldest revisions over the limit, where they are surely empty.
    fn drop_history(&mut self) {
        let limit = self
            .deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit)
            .unwrap_or(10);
        let mut old: Vec<usize> = self.old();
        old.retain(|index| self.members[*index].set.metadata.deletion_timestamp.is_none());
        old.sort_by_key(|index| annotations::revision(&self.members[*index].set.metadata));
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for index in old.into_iter().take(surplus) {
            let member = &mut self.members[index];
            member.deleted = is_surely_empty(&member.set);
        }
    }

    fn sets(&self) -> Sets<'_> {
        Sets {
            newest: self.newest.map(|index| &self.members[index].set),
            all: self.members.iter().map(|member| &member.set).collect(),
        }
    }

    fn finish(self, saying: Saying) -> Plan {
        let status = match saying {
            Saying::Counts => status::count(self.deployment, &self.status, &self.sets(), self.now),
            Saying::Progress => status::progress(self.deployment, &self.status, &self.sets(), self.now),
        };
        let recheck = match saying {
            Saying::Counts => None,
            Saying::Progress => status::recheck(self.deployment, &status, self.now),
        };
        let mut steps: Vec<Step> = self.members.into_iter().filter_map(Member::into_step).collect();
        // New pods first: they take their time to become available.
        steps.sort_by_key(|step| !matches!(step, Step::Create(_)));
        Plan {
            steps,
            revision: self.revision,
            status,
            recheck,
        }
    }
}

impl Member {
    fn into_step(self) -> Option<Step> {
        if self.created {
            return Some(Step::Create(self.set));
        }
        if self.deleted {
            return Some(Step::Delete(self.before));
        }
        let from = wanted(&self.before);
        (self.set != self.before).then_some(Step::Update { set: self.set, from })
    }
}

fn age(set: &ReplicaSet) -> (Option<Timestamp>, Option<&str>) {
    (
        set.metadata.creation_timestamp.as_ref().map(|time| time.0),
        set.metadata.name.as_deref(),
    )
}

fn is_surely_empty(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    wanted(set) == 0 && status.replicas == 0 && set.metadata.generation <= status.observed_generation
}
