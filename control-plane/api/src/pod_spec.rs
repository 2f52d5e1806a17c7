//! Pod specs, in pods and in templates: defaults, validation, quality of service.

mod containers;
mod defaults;
mod env;
mod placement;
mod probes;
mod qos;
mod resources;
mod update;
mod validate;
mod volumes;

pub(crate) use defaults::{set_defaults, set_pod_defaults};
pub(crate) use probes::validate_port;
pub use qos::qos_class;
pub(crate) use update::validate_update;
pub(crate) use validate::{one_of, validate, validate_template};
