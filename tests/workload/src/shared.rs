//! What all clients and watchers of a workload share.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Plan;
use crate::access::{Access, Server};
use crate::caller::Caller;

/// A request without an answer for so long has an unknown outcome.
pub(crate) const OPERATION_LIMIT: Duration = Duration::from_secs(2);

pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) access: Access,
    pub(crate) servers: Vec<Server>,
    pub(crate) begin: Instant,
    /// What makes the objects as large as they should be.
    pub(crate) filling: String,
    /// Writes that were acknowledged.
    pub(crate) acknowledged: AtomicU64,
    /// No more operations.
    pub(crate) stop: CancellationToken,
    /// Nothing more to watch.
    pub(crate) done: CancellationToken,
    pub(crate) connections: TaskTracker,
}

impl Shared {
    /// Microseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Connections of one's own to all servers.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        let caller =
            |server: &Server| Caller::new(self.access.clone(), server.clone(), self.connections.clone());
        self.servers.iter().map(caller).collect()
    }
}
