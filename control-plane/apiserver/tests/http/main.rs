//! Whole requests against a real replica in a temporary folder, without sockets.

mod cluster;
mod discovery;
mod lists;
mod objects;
mod refusals;
mod watches;
