//! Counters of the controllers' work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What one controller did so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerCounts {
    /// The controller's name.
    pub name: &'static str,
    /// Reconciles that ended, well or not.
    pub runs: u64,
    /// Reconciles that failed and come again.
    pub failures: u64,
    /// Reconciles that met a conflict and come again.
    pub conflicts: u64,
    /// Keys that waited when the queue was last looked at.
    pub queue_depth: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) runs: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) depth: AtomicUsize,
}

/// The counters of all controllers of this process; they go on over changes of leadership.
#[derive(Debug, Default)]
pub struct Metrics {
    controllers: Mutex<BTreeMap<&'static str, Arc<Counters>>>,
}

impl Metrics {
    /// What every controller did so far, by name.
    pub fn counts(&self) -> Vec<ControllerCounts> {
        let controllers = self.controllers.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(name, counters): (&&'static str, &Arc<Counters>)| ControllerCounts {
            name,
            runs: counters.runs.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            conflicts: counters.conflicts.load(Ordering::Relaxed),
            queue_depth: counters.depth.load(Ordering::Relaxed),
        };
        controllers.iter().map(read).collect()
    }

    pub(crate) fn of(&self, name: &'static str) -> Arc<Counters> {
        let mut controllers = self.controllers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(controllers.entry(name).or_default())
    }
}
