//! A control-plane replica: options, wiring, run, drain.
//!
//! Joins the parts: the replicated store, the API, controllers and scheduler while this replica leads, and the
//! conversations with nodes. Decides nothing about Kubernetes objects itself beyond registering nodes.

pub mod backup;
mod kubeconfig;
mod leader_lease;
mod leading;
mod listener;
mod material;
mod nodes;
mod options;
mod reset;
mod server;
mod snapshots;

pub use flotilla_apiserver::InFlightLimits;
pub use flotilla_controllers::AddressPool;
pub use flotilla_resources::ServiceCidr;
#[cfg(feature = "planted-bugs")]
pub use flotilla_store::planted;
pub use material::MaterialError;
pub use options::{JoinOptions, Options};
pub use reset::ResetError;
pub use server::{Server, ServerError};
