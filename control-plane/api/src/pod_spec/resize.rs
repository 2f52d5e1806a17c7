//! Resources of a running pod: the one thing about its containers that may change while they run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::qos_class;
use super::validate::one_of;
use crate::field::{FieldErrors, Path};
use crate::quantity::QuantityField;
use crate::static_pods::is_mirror;

/// What can be changed without another container.
const MUTABLE: [&str; 2] = ["cpu", "memory"];

/// Takes over the containers' resources and nothing else.
pub(crate) fn take(pod: &mut Pod, from: &Pod) {
    let (Some(spec), Some(from)) = (&mut pod.spec, &from.spec) else {
        return;
    };
    take_list(&mut spec.containers, &from.containers);
    take_list(
        spec.init_containers.as_deref_mut().unwrap_or_default(),
        from.init_containers.as_deref().unwrap_or_default(),
    );
}

fn take_list(containers: &mut [Container], from: &[Container]) {
    for container in containers {
        if let Some(from) = from.iter().find(|from| from.name == container.name) {
            container.resources.clone_from(&from.resources);
            container.resize_policy.clone_from(&from.resize_policy);
        }
    }
}

/// What may not change about resources.
pub(crate) fn validate_update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let spec = Path::root("spec");
    if is_mirror(old) {
        errors.forbidden(Path::root(""), "static pods cannot be resized");
        return;
    }
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    if qos_class(new) != qos_class(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(spec, qos_class(new), detail);
    }
    let list = spec.child("containers");
    for (index, (new, old)) in new.containers.iter().zip(&old.containers).enumerate() {
        validate_container(new, old, list.index(index), errors);
    }
    validate_inits(new, old, spec, errors);
}

fn validate_inits(new: &PodSpec, old: &PodSpec, spec: Path<'_>, errors: &mut FieldErrors) {
    let list = spec.child("initContainers");
    let (new, old) = (new.init_containers.iter(), old.init_containers.iter());
    for (index, (new, old)) in new.flatten().zip(old.flatten()).enumerate() {
        if old.restart_policy.as_deref() == Some("Always") {
            validate_container(new, old, list.index(index), errors);
        } else if new.resources != old.resources || new.resize_policy != old.resize_policy {
            errors.forbidden(
                list.index(index),
                "only cpu and memory resources for sidecar containers are mutable",
            );
        }
    }
}

fn validate_container(new: &Container, old: &Container, path: Path<'_>, errors: &mut FieldErrors) {
    let none = ResourceRequirements::default();
    let (new, old) = (
        new.resources.as_ref().unwrap_or(&none),
        old.resources.as_ref().unwrap_or(&none),
    );
    let path = path.child("resources");
    for (field, what, new, old) in [
        ("limits", "resource limits", &new.limits, &old.limits),
        ("requests", "resource requests", &new.requests, &old.requests),
    ] {
        let is_gone = |name: &&str| has(old, name) && !has(new, name);
        if MUTABLE.iter().any(is_gone) {
            errors.forbidden(path.child(field), format!("{what} cannot be removed"));
        }
        if rest(new) != rest(old) {
            errors.forbidden(path.child(field), "only cpu and memory resources are mutable");
        }
    }
}

fn has(list: &Option<BTreeMap<String, QuantityField>>, name: &str) -> bool {
    list.as_ref().is_some_and(|list| list.contains_key(name))
}

fn rest(list: &Option<BTreeMap<String, QuantityField>>) -> Vec<(&String, &QuantityField)> {
    let all = list.iter().flatten();
    all.filter(|(name, _)| !MUTABLE.contains(&name.as_str()))
        .collect()
}

/// How a container takes a change of its resources.
pub(super) fn validate_policy(
    container: &Container,
    pod_policy: Option<&str>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let path = path.child("resizePolicy");
    let mut seen = Vec::new();
    for (index, rule) in container.resize_policy.iter().flatten().enumerate() {
        one_of(&rule.resource_name, &MUTABLE, path, errors);
        one_of(
            &rule.restart_policy,
            &["NotRequired", "RestartContainer"],
            path,
            errors,
        );
        if pod_policy == Some("Never") && rule.restart_policy == "RestartContainer" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.invalid(path, &rule.restart_policy, detail);
        }
        if seen.contains(&&rule.resource_name) {
            errors.duplicate(path.index(index), &rule.resource_name);
        }
        seen.push(&rule.resource_name);
    }
}
