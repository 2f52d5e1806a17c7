//! Whole requests against a real replica in a temporary folder; only streams need a socket.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod cluster;
mod discovery;
mod lists;
mod members;
mod metrics;
mod objects;
mod overload;
mod refusals;
mod streams;
mod watches;
