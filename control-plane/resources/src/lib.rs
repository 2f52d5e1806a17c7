//! The write path that all of the control plane shares: default, validate, propose.
//!
//! HTTP handlers, controllers, the scheduler and node sessions change objects only through [`Resources`], so that an
//! object means the same whoever wrote it. Reads that need no decision go to the replica's snapshots directly.
//! Nothing here knows HTTP, and nothing decides what a controller wants.

mod accounts;
mod bind;
mod cache;
mod create;
mod delete;
mod events;
mod priority;
mod propose;
mod resources;
mod service_network;
mod typed;
mod update;

pub use bind::Binding;
pub use cache::{Cache, CacheEvent};
pub use delete::{DeleteOptions, Deleted, Propagation};
pub use events::{EventRecord, EventType, EventWriter};
pub use propose::read_failed;
pub use resources::{Options, Part, Resources, WriteOptions, Written};
pub use service_network::{ParseServiceCidrError, ServiceCidr};
pub use typed::TypedObject;
