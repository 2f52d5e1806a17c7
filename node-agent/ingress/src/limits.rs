//! How long things may take, and how many there may be.

use std::time::Duration;

/// Limits of a proxy. The defaults are what a node uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A request's head has to be there within this time of the last answer, or of the beginning: no slow trickle of
    /// headers, and no connection that is kept for longer without use.
    pub head: Duration,
    /// A connection on which no byte moves is closed, whatever is under way on it: a silent endpoint, a client that takes
    /// nothing, a WebSocket without pings.
    pub idle: Duration,
    /// How long an endpoint may take to begin its answer after the last byte of the request, as in most proxies.
    pub answer: Duration,
    /// When the proxy stops, requests under way get this long; less than the five seconds of the agent.
    pub drain: Duration,
    /// Connections at once. Each costs up to 100 KiB with TLS and two of the process's files; others wait in the kernel
    /// until one ends.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            answer: Duration::from_secs(60),
            drain: Duration::from_secs(4),
            connections: 4096,
        }
    }
}
