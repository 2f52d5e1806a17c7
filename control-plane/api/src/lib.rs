//! The Kubernetes API as data: kinds, defaults, validation, printed columns, selectors, quantities, patches.
//!
//! Everything here is a plain function of its arguments: no clock, no randomness, no I/O. A kind is described once,
//! in its file under `kinds/`, and found through the [`registry`].

mod account_token;
pub mod amounts;
mod builder;
pub mod claims;
pub mod decode;
pub mod duration;
pub mod field;
pub mod ingresses;
pub mod int_or_string;
mod kind;
mod kinds;
pub mod members;
pub mod metadata;
pub mod metrics;
mod names;
mod object;
pub mod openapi;
pub mod patch;
mod pod_spec;
pub mod quantity;
mod registry;
pub mod selector;
pub mod static_pods;
mod status;
pub mod summary;
mod template;

pub use account_token::add_service_account;
pub use decode::{Decoded, FieldValidation};
pub use field::{FieldError, FieldErrors, Path};
pub use k8s_openapi;
pub use kind::{Column, Kind, SubresourceInfo};
pub use kinds::priority_class::system_priority_classes;
pub use kinds::storage_class::{LOCAL_PROVISIONER, is_default_class, local_storage_class};
pub use metadata::controller_of;
pub use object::{Object, draft};
pub use pod_spec::{ephemeral_as_container, qos_class};
pub use registry::{Registry, registry};
pub use status::{Cause, Details, Reason, Status};
pub use template::{add_default_tolerations, pod_template_hash};
