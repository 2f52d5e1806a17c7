//! A whole cluster on this machine: real processes, each in namespaces and cgroups of its own.
//!
//! Nothing is changed in the machine's own network: one more network namespace, the switch, joins the nodes, and a
//! supervisor process forwards a port of 127.0.0.1 to the servers. All of a cluster can be found again from its name
//! alone, so [`down`] cleans up after any crash. Never looks for processes by their names.

mod cgroup;
mod cluster;
mod enter;
mod error;
mod faults;
mod node;
mod partition;
mod place;
mod proxy;
mod state;
mod status;
mod supervisor;
mod switch;

pub use cluster::{Ready, UpOptions, down, up};
pub use enter::{enter, exec};
pub use error::LocalError;
pub use faults::{Extent, kill, pause, resume, start};
pub use partition::{heal, partition};
pub use place::Place;
pub use state::Role;
pub use status::{NodeStatus, RunState, Status, status};
pub use supervisor::supervise;
