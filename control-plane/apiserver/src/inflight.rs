//! How much is under way at once. What comes beyond is refused at once with 429, so that a server under too much load
//! answers what it can and keeps its memory.
//!
//! Nodes' sessions and the calls of other servers do not come this way: each queue behind these limits has room for
//! all that they let in, and for those. Health, version and metrics are always answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_api::Status;
use flotilla_store::REQUEST_BYTES_MAX;
use http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::path::Target;

/// How much may be under way at once.
#[derive(Debug, Clone, Copy)]
pub struct InFlightLimits {
    /// Requests that change something. They may take as long as a write waits for a leader.
    pub mutating: usize,
    /// Requests that read.
    pub reading: usize,
    /// Watches, logs and the like, which last as long as the client wants.
    pub long_running: usize,
    /// Bytes of request bodies that are in memory. An object takes several times its body while it is worked on.
    pub body_bytes: usize,
}

impl Default for InFlightLimits {
    /// More than Kubernetes' 200 and 400, as a request here takes less; a third of what the leader's queues hold, so that
    /// three servers at their limits leave room in them.
    fn default() -> Self {
        Self {
            mutating: 512,
            reading: 1024,
            // A watch takes some kilobytes; 5,000 nodes have a few clients each.
            long_running: 16_384,
            body_bytes: 64 << 20,
        }
    }
}

/// The limit under which a request falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Mutating,
    Reading,
    LongRunning,
}

impl Class {
    pub(crate) const ALL: [Class; 3] = [Class::Mutating, Class::Reading, Class::LongRunning];

    /// Kubernetes' word for it in metrics, as far as it has one.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Class::Mutating => "mutating",
            Class::Reading => "readOnly",
            Class::LongRunning => "longRunning",
        }
    }
}

/// Subresources that Kubernetes counts as long-running.
const LONG_RUNNING: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// The class of a request; none for what is always answered.
pub(crate) fn class(method: &Method, target: &Target, watches: bool) -> Option<Class> {
    let path = match target {
        Target::Health { .. } | Target::Version | Target::Metrics => return None,
        Target::Resource(path) => Some(path),
        _ => None,
    };
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let subresource = path.and_then(|path| path.subresource.as_deref());
    if subresource.is_some_and(|name| LONG_RUNNING.contains(&name)) || (reads && watches && path.is_some()) {
        return Some(Class::LongRunning);
    }
    Some(if reads { Class::Reading } else { Class::Mutating })
}

/// The right to be under way; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(
    #[allow(dead_code, reason = "held for its effect when it is dropped")] OwnedSemaphorePermit,
);

/// Bodies are counted in these.
const BODY_UNIT_BYTES: usize = 1024;

/// What is under way on this server.
pub(crate) struct InFlight {
    limits: InFlightLimits,
    classes: [Arc<Semaphore>; 3],
    refused: [AtomicU64; 3],
    bodies: Arc<Semaphore>,
}

impl InFlight {
    pub(crate) fn new(limits: InFlightLimits) -> Self {
        let semaphore = |count: usize| Arc::new(Semaphore::new(count));
        Self {
            limits,
            classes: Class::ALL.map(|class| semaphore(limit(&limits, class))),
            refused: Default::default(),
            bodies: semaphore(limits.body_bytes / BODY_UNIT_BYTES),
        }
    }

    /// Lets a request in, or refuses it at once.
    pub(crate) fn enter(&self, class: Class) -> Result<Permit, Status> {
        let permit = Arc::clone(&self.classes[class as usize]).try_acquire_owned();
        permit.map(Permit).map_err(|_| self.refuse(class))
    }

    /// Makes room for a body, before any of it is read.
    pub(crate) fn take_body(&self, class: Class, bytes: u64) -> Result<Permit, Status> {
        let bytes = bytes.min(REQUEST_BYTES_MAX as u64) as usize;
        let units = bytes.div_ceil(BODY_UNIT_BYTES) as u32;
        let permit = Arc::clone(&self.bodies).try_acquire_many_owned(units);
        permit.map(Permit).map_err(|_| self.refuse(class))
    }

    fn refuse(&self, class: Class) -> Status {
        self.refused[class as usize].fetch_add(1, Ordering::Relaxed);
        Status::too_many_requests("too many requests, please try again later")
    }

    /// How many are under way, and how many were refused since the start.
    pub(crate) fn count(&self, class: Class) -> (usize, u64) {
        let free = self.classes[class as usize].available_permits();
        let refused = self.refused[class as usize].load(Ordering::Relaxed);
        (limit(&self.limits, class).saturating_sub(free), refused)
    }
}

fn limit(limits: &InFlightLimits, class: Class) -> usize {
    match class {
        Class::Mutating => limits.mutating,
        Class::Reading => limits.reading,
        Class::LongRunning => limits.long_running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_what_they_do_and_how_long() {
        use Class::{LongRunning, Mutating, Reading};
        let pods = "/api/v1/namespaces/default/pods";
        for (method, path, watches, wanted) in [
            (Method::GET, "/readyz", false, None),
            (Method::GET, "/version", false, None),
            (Method::GET, "/metrics", false, None),
            (Method::GET, "/apis", false, Some(Reading)),
            (Method::GET, pods, false, Some(Reading)),
            (Method::GET, pods, true, Some(LongRunning)),
            (Method::POST, pods, false, Some(Mutating)),
            (Method::POST, pods, true, Some(Mutating)),
            (Method::DELETE, &format!("{pods}/a"), false, Some(Mutating)),
            (Method::GET, &format!("{pods}/a/log"), false, Some(LongRunning)),
            (Method::POST, &format!("{pods}/a/exec"), false, Some(LongRunning)),
            (Method::PUT, &format!("{pods}/a/status"), false, Some(Mutating)),
        ] {
            let found = class(&method, &crate::path::parse(path), watches);
            assert_eq!(found, wanted, "{method} {path} {watches}");
        }
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused_until_something_ends() {
        let limits = InFlightLimits {
            mutating: 1,
            reading: 1,
            long_running: 1,
            body_bytes: 4 << 20,
        };
        let in_flight = InFlight::new(limits);
        let first = in_flight.enter(Class::Mutating).unwrap();
        let refused = in_flight.enter(Class::Mutating).unwrap_err();
        assert_eq!(refused.details.unwrap().retry_after_seconds, Some(1));
        // Readers are not kept out by writers.
        let _reader = in_flight.enter(Class::Reading).unwrap();
        assert_eq!(in_flight.count(Class::Mutating), (1, 1));
        drop(first);
        in_flight.enter(Class::Mutating).unwrap();

        let body = in_flight.take_body(Class::Mutating, u64::MAX).unwrap();
        in_flight.take_body(Class::Mutating, 2 << 20).unwrap_err();
        in_flight.take_body(Class::Mutating, 1 << 20).unwrap();
        drop(body);
        in_flight.take_body(Class::Mutating, 2 << 20).unwrap();
        assert_eq!(in_flight.count(Class::Mutating), (0, 2));
    }
}
