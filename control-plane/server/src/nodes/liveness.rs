//! When each node was last heard, in this server's memory only.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use flotilla_controllers::NodeLiveness;

/// The last sign of life of each node.
#[derive(Default)]
pub(crate) struct Liveness {
    heard: Mutex<HashMap<String, Instant>>,
}

impl Liveness {
    /// Notes a sign of life; returns how long the node had been silent before it.
    pub(crate) fn note(&self, node: &str) -> Option<Duration> {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.get_mut(node) {
            Some(last) => Some(now.duration_since(std::mem::replace(last, now))),
            None => {
                heard.insert(node.to_owned(), now);
                None
            }
        }
    }
}

impl NodeLiveness for Liveness {
    fn last_heard(&self, node: &str) -> Option<Instant> {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(node)
            .copied()
    }
}
