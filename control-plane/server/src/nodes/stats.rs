//! What the nodes have reported of their use, in this server's memory only: the newest report of each.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use flotilla_apiserver::NodeStats;

use super::Nodes;

/// Nodes report every ten seconds. What is older than this says nothing about now.
const STALE: Duration = Duration::from_secs(60);
/// A report has some hundred bytes for each container; a larger one is none.
const REPORT_BYTES_MAX: usize = 4 << 20;

/// The newest report of each node.
#[derive(Default)]
pub(super) struct Stats {
    reports: Mutex<HashMap<String, Report>>,
}

struct Report {
    at: Instant,
    json: Bytes,
}

impl Stats {
    /// Replaces a node's report.
    pub(super) fn keep(&self, node: &str, json: Bytes) {
        if json.len() > REPORT_BYTES_MAX {
            tracing::warn!(
                node,
                bytes = json.len(),
                "a node's statistics are too large and are dropped"
            );
            return;
        }
        let at = Instant::now();
        let mut reports = self.reports();
        // Nodes that are gone leave nothing behind.
        reports.retain(|_, report| at.duration_since(report.at) < STALE);
        reports.insert(node.to_owned(), Report { at, json });
    }

    fn reports(&self) -> MutexGuard<'_, HashMap<String, Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeStats for Nodes {
    fn newest(&self, node: &str) -> Option<Bytes> {
        let reports = self.inner.stats.reports();
        let fresh = reports.get(node).filter(|report| report.at.elapsed() < STALE);
        fresh.map(|report| report.json.clone())
    }

    fn all(&self) -> Vec<Bytes> {
        let reports = self.inner.stats.reports();
        let fresh = reports.values().filter(|report| report.at.elapsed() < STALE);
        fresh.map(|report| report.json.clone()).collect()
    }
}
