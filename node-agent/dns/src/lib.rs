//! The cluster's names, answered on every node: services, endpoints, pods, and by asking upstream everything else.
//!
//! [`Records`] is a pure index that somebody keeps up to date; [`Server`] answers from it over UDP and TCP. Nothing here
//! talks to the control plane, so names are answered while it is away.

mod answer;
mod cache;
mod forward;
mod question;
mod records;
mod resolver;
mod reverse;
mod server;
mod upstreams;

pub use question::RecordKind;
pub use records::{Lookup, Records, Value};
pub use server::{Options, Server};
