//! Pods that wait for a node.
//!
//! Pure: time is an argument. A pod that fits nowhere waits until something happens that could help it, and not less
//! than its backoff; after a while it is tried again anyway.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::filters::Reason;

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that waits for something to happen is tried again after this long, should a wake-up be missing here.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Names a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
}

/// Something that happened and could help a pod that fits nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A node came, or changed in what pods look at.
    Node,
    /// A pod went from a node.
    PodGone,
    /// A pod came to a node.
    PodPlaced,
    /// A claim, volume or class came or changed.
    Storage,
}

/// What could help a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hopes {
    pod_gone: bool,
    pod_placed: bool,
    storage: bool,
}

impl Hopes {
    /// What could help against these reasons; a node always could.
    pub fn of<'a>(reasons: impl IntoIterator<Item = &'a Reason>) -> Hopes {
        let mut hopes = Hopes::default();
        for reason in reasons {
            match reason {
                Reason::Ports | Reason::TooManyPods | Reason::Insufficient(_) => hopes.pod_gone = true,
                Reason::PodAntiAffinity | Reason::ExistingAntiAffinity | Reason::ClaimInUse => {
                    hopes.pod_gone = true;
                }
                Reason::Spread => (hopes.pod_gone, hopes.pod_placed) = (true, true),
                Reason::PodAffinity => hopes.pod_placed = true,
                Reason::VolumeAffinity | Reason::NoVolume => hopes.storage = true,
                Reason::OtherNode
                | Reason::Unschedulable
                | Reason::Affinity
                | Reason::Taint(..)
                | Reason::SpreadLabel => {}
            }
        }
        hopes
    }

    /// What could help a pod that no node can take because of its claims.
    #[must_use]
    pub fn of_storage() -> Hopes {
        Hopes {
            storage: true,
            ..Hopes::default()
        }
    }

    fn include(self, news: News) -> bool {
        match news {
            News::Node => true,
            News::PodGone => self.pod_gone,
            News::PodPlaced => self.pod_placed,
            News::Storage => self.storage,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active((Reverse<i32>, u64)),
    Backoff((Instant, u64)),
    Waiting {
        hopes: Hopes,
        not_before: Instant,
        until: (Instant, u64),
    },
    InFlight,
}

#[derive(Debug)]
struct Entry {
    priority: i32,
    attempts: u32,
    place: Place,
}

/// All pods that wait.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<PodKey, Entry>,
    active: BTreeMap<(Reverse<i32>, u64), PodKey>,
    backoff: BTreeMap<(Instant, u64), PodKey>,
    overdue: BTreeMap<(Instant, u64), PodKey>,
    waiting: BTreeSet<PodKey>,
    sequence: u64,
}

impl Queue {
    /// A pod needs a node. Pods that are known stay where they are.
    pub fn add(&mut self, key: PodKey, priority: i32) {
        if self.entries.contains_key(&key) {
            return;
        }
        let slot = (Reverse(priority), self.next());
        self.active.insert(slot, key.clone());
        let entry = Entry {
            priority,
            attempts: 0,
            place: Place::Active(slot),
        };
        self.entries.insert(key, entry);
    }

    /// A pod that waits changed in a way that could help it.
    pub fn retry(&mut self, key: &PodKey, now: Instant) {
        if let Some(Place::Waiting { not_before, .. }) = self.entries.get(key).map(|entry| entry.place) {
            self.release(key, not_before, now);
        }
    }

    /// The pod needs no node any more.
    pub fn remove(&mut self, key: &PodKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.unlink(key, entry.place);
        }
    }

    /// The pods to place next, most important first, oldest first among equals. They are in flight until they are
    /// removed or given back.
    pub fn take(&mut self, max: usize, now: Instant) -> Vec<PodKey> {
        self.release_due(now);
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some((_, key)) = self.active.pop_first() else {
                break;
            };
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::InFlight;
                entry.attempts += 1;
            }
            taken.push(key);
        }
        taken
    }

    /// No node would do: the pod waits for news that could help.
    pub fn give_back_unplaced(&mut self, key: &PodKey, hopes: Hopes, now: Instant) {
        let until = (now + WAIT_MAX, self.next());
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.place = Place::Waiting {
            hopes,
            not_before: now + backoff(entry.attempts),
            until,
        };
        self.overdue.insert(until, key.clone());
        self.waiting.insert(key.clone());
    }

    /// Binding failed: the pod comes again after its backoff.
    pub fn give_back_failed(&mut self, key: &PodKey, now: Instant) {
        let Some(attempts) = self.entries.get(key).map(|entry| entry.attempts) else {
            return;
        };
        self.release(key, now + backoff(attempts), now);
    }

    /// Something happened: those whom it could help are tried again.
    pub fn wake(&mut self, news: News, now: Instant) {
        let helped: Vec<(PodKey, Instant)> = self
            .waiting
            .iter()
            .filter_map(|key| match self.entries.get(key)?.place {
                Place::Waiting {
                    hopes, not_before, ..
                } if hopes.include(news) => Some((key.clone(), not_before)),
                _ => None,
            })
            .collect();
        for (key, not_before) in helped {
            self.release(&key, not_before, now);
        }
    }

    /// When a pod that waits for its time will be ready.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let first = |list: &BTreeMap<(Instant, u64), PodKey>| list.keys().next().map(|(at, _)| *at);
        [first(&self.backoff), first(&self.overdue)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether a pod could be taken now.
    #[must_use]
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    fn release_due(&mut self, now: Instant) {
        while let Some((at, key)) = self
            .backoff
            .first_key_value()
            .map(|(slot, key)| (slot.0, key.clone()))
        {
            if at > now {
                break;
            }
            self.release(&key, at, now);
        }
        while let Some((at, key)) = self
            .overdue
            .first_key_value()
            .map(|(slot, key)| (slot.0, key.clone()))
        {
            if at > now {
                break;
            }
            self.release(&key, at, now);
        }
    }

    /// Makes a pod active, or lets it sit out its backoff first.
    fn release(&mut self, key: &PodKey, not_before: Instant, now: Instant) {
        let sequence = self.next();
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let old = entry.place;
        if not_before > now {
            entry.place = Place::Backoff((not_before, sequence));
            self.backoff.insert((not_before, sequence), key.clone());
        } else {
            let slot = (Reverse(entry.priority), sequence);
            entry.place = Place::Active(slot);
            self.active.insert(slot, key.clone());
        }
        self.unlink(key, old);
    }

    fn unlink(&mut self, key: &PodKey, place: Place) {
        match place {
            Place::Active(slot) => {
                self.active.remove(&slot);
            }
            Place::Backoff(slot) => {
                self.backoff.remove(&slot);
            }
            Place::Waiting { until, .. } => {
                self.overdue.remove(&until);
                self.waiting.remove(key);
            }
            Place::InFlight => {}
        }
    }

    fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

fn backoff(attempts: u32) -> Duration {
    BACKOFF_MIN
        .saturating_mul(1 << attempts.saturating_sub(1).min(10))
        .min(BACKOFF_MAX)
}
