//! Which key is to be reconciled next.
//!
//! Pure: time is an argument. A key is never handed out twice at once, and a key that is added while it is being
//! reconciled comes again afterwards.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What a reconcile wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// To be called when something changes.
    Wait,
    /// To be called after this time at the latest.
    RecheckAfter(Duration),
}

/// Keys that wait, and keys that are being worked on.
#[derive(Debug)]
pub(crate) struct Pending<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    running: HashSet<K>,
    again: HashSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
}

impl<K: Clone + Eq + Hash> Pending<K> {
    pub(crate) fn new() -> Pending<K> {
        Pending {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        }
    }

    /// The key is to be reconciled as soon as possible.
    pub(crate) fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// The next key to reconcile; it is running until [`Self::finish`].
    pub(crate) fn take(&mut self, now: Instant) -> Option<K> {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.cancel_recheck(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// When a key that waits for its time will be due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.delayed.keys().next().map(|(at, _)| *at)
    }

    /// How many keys could be taken now.
    pub(crate) fn depth(&self) -> usize {
        self.ready.len()
    }

    /// The key was reconciled.
    pub(crate) fn succeed(&mut self, key: &K, next: Next, now: Instant) {
        self.failures.remove(key);
        self.running.remove(key);
        if self.again.remove(key) {
            self.add(key.clone());
        } else if let Next::RecheckAfter(delay) = next {
            self.delay(key, now + delay);
        }
    }

    /// The key could not be reconciled and comes again, later each time.
    pub(crate) fn fail(&mut self, key: &K, now: Instant) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let backoff = BACKOFF_MIN
            .saturating_mul(1 << (*failures).min(20))
            .min(BACKOFF_MAX);
        *failures += 1;
        self.running.remove(key);
        self.again.remove(key);
        self.delay(key, now + backoff);
        backoff
    }

    fn delay(&mut self, key: &K, at: Instant) {
        self.cancel_recheck(key);
        self.sequence += 1;
        self.due.insert(key.clone(), (at, self.sequence));
        self.delayed.insert((at, self.sequence), key.clone());
    }

    fn cancel_recheck(&mut self, key: &K) {
        if let Some(slot) = self.due.remove(key) {
            self.delayed.remove(&slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pending: &mut Pending<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| pending.take(now)).collect()
    }

    #[test]
    fn a_key_added_twice_comes_once() {
        let mut pending = Pending::new();
        pending.add("a");
        pending.add("b");
        pending.add("a");
        assert_eq!(taken(&mut pending, Instant::now()), ["a", "b"]);
    }

    #[test]
    fn a_key_added_while_it_runs_comes_again_only_afterwards() {
        let (mut pending, now) = (Pending::new(), Instant::now());
        pending.add("a");
        assert_eq!(taken(&mut pending, now), ["a"]);
        pending.add("a");
        assert!(taken(&mut pending, now).is_empty());
        pending.succeed(&"a", Next::Wait, now);
        assert_eq!(taken(&mut pending, now), ["a"]);
        pending.succeed(&"a", Next::Wait, now);
        assert!(taken(&mut pending, now).is_empty());
    }

    #[test]
    fn failures_come_again_later_each_time_and_success_forgets_them() {
        let (mut pending, now) = (Pending::new(), Instant::now());
        pending.add("a");
        taken(&mut pending, now);
        assert_eq!(pending.fail(&"a", now), BACKOFF_MIN);
        assert!(taken(&mut pending, now).is_empty());
        let later = pending.next_due().unwrap();
        assert_eq!(taken(&mut pending, later), ["a"]);
        assert_eq!(pending.fail(&"a", later), BACKOFF_MIN * 2);
        let later = pending.next_due().unwrap();
        taken(&mut pending, later);
        pending.succeed(&"a", Next::Wait, later);
        pending.add("a");
        taken(&mut pending, later);
        assert_eq!(pending.fail(&"a", later), BACKOFF_MIN);
    }

    #[test]
    fn the_last_recheck_replaces_the_one_before() {
        let (mut pending, now) = (Pending::new(), Instant::now());
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(9));
        for delay in [soon, late] {
            pending.add("a");
            taken(&mut pending, now);
            pending.succeed(&"a", Next::RecheckAfter(delay), now);
        }
        assert!(taken(&mut pending, now + soon).is_empty());
        assert_eq!(taken(&mut pending, now + late), ["a"]);
        assert_eq!(pending.next_due(), None);
    }
}
