//! When each node was last heard, in this server's memory only.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use flotilla_controllers::NodeLiveness;
use tokio::sync::watch;

/// A node that was silent for this long may have been called not ready; its return is news.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// The last sign of life of each node.
pub(crate) struct Liveness {
    heard: Mutex<HashMap<String, Instant>>,
    /// Counts returns and first signs.
    returns: watch::Sender<u64>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            heard: Mutex::default(),
            returns: watch::Sender::new(0),
        }
    }
}

impl Liveness {
    /// Notes a sign of life; true when it is the first, or the first after a silence.
    pub(crate) fn note(&self, node: &str) -> bool {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = match heard.get_mut(node) {
            Some(last) => now.duration_since(std::mem::replace(last, now)) >= SILENCE,
            None => {
                heard.insert(node.to_owned(), now);
                true
            }
        };
        drop(heard);
        if silent {
            self.returns.send_modify(|count| *count += 1);
        }
        silent
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

    fn changed(&self) -> watch::Receiver<u64> {
        self.returns.subscribe()
    }
}
