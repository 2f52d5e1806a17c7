//! What is wrong with requests and limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::field::{FieldErrors, Path};
use crate::names;
use crate::quantity::{Quantity, QuantityField};

const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Requests and limits of a container.
pub(crate) fn validate(resources: &ResourceRequirements, path: Path<'_>, errors: &mut FieldErrors) {
    validate_list(resources.limits.as_ref(), path.child("limits"), errors);
    validate_list(resources.requests.as_ref(), path.child("requests"), errors);
    for (name, request) in resources.requests.iter().flatten() {
        let limit = Quantity::get(resources.limits.as_ref(), name);
        let (Some(request), Some(limit)) = (Quantity::of(request), limit) else {
            continue;
        };
        if request > limit {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(path.child("requests"), request.to_string(), detail);
        } else if is_extended(name) && request != limit {
            let detail = format!("must be equal to {name} limit of {limit}");
            errors.invalid(path.child("requests"), request.to_string(), detail);
        }
    }
}

fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.starts_with("kubernetes.io/")
}

fn validate_list(list: Option<&BTreeMap<String, QuantityField>>, path: Path<'_>, errors: &mut FieldErrors) {
    for (name, amount) in list.into_iter().flatten() {
        let path = path.key(name);
        for problem in names::qualified(name) {
            errors.invalid(path, name, problem);
        }
        let is_standard = STANDARD.contains(&name.as_str()) || name.starts_with("hugepages-");
        if !name.contains('/') && !is_standard {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
        match Quantity::parse(&amount.0) {
            Err(problem) => errors.invalid(path, &amount.0, problem.to_string()),
            Ok(quantity) if quantity.is_negative() => {
                errors.invalid(path, quantity.to_string(), "must be greater than or equal to 0");
            }
            Ok(quantity) if is_extended(name) && !quantity.is_integer() => {
                errors.invalid(path, quantity.to_string(), "must be an integer");
            }
            Ok(_) => {}
        }
    }
}
