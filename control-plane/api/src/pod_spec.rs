//! Pod specs, in pods and in templates: defaults, validation, quality of service.

mod containers;
mod defaults;
mod env;
mod ephemeral;
mod names_in_pod;
mod placement;
mod probes;
mod qos;
mod resize;
mod resources;
mod update;
mod validate;
mod volumes;

pub(crate) use defaults::{set_defaults, set_pod_defaults};
pub use ephemeral::ephemeral_as_container;
pub(crate) use ephemeral::{
    take as take_ephemeral, validate_create as validate_ephemeral_create,
    validate_update as validate_ephemeral_update,
};
pub(crate) use probes::validate_port;
pub use qos::qos_class;
pub(crate) use resize::{take as take_resources, validate_update as validate_resize};
pub(crate) use update::validate_update;
pub(crate) use validate::{one_of, validate, validate_template};
