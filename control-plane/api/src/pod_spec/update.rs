//! What may not change in a pod's spec.

use k8s_openapi::api::core::v1::{Container, PodSpec, Toleration};

use crate::field::{FieldErrors, Path};

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Compares the spec of a pod with the one before.
pub(crate) fn validate_update(new: &PodSpec, old: &PodSpec, errors: &mut FieldErrors) {
    let spec = Path::root("spec");
    for (field, new, old) in [
        ("containers", Some(&new.containers), Some(&old.containers)),
        (
            "initContainers",
            new.init_containers.as_ref(),
            old.init_containers.as_ref(),
        ),
    ] {
        if new.map_or(0, Vec::len) != old.map_or(0, Vec::len) {
            errors.forbidden(spec.child(field), "pod updates may not add or remove containers");
            return;
        }
    }
    validate_deadline(new.active_deadline_seconds, old.active_deadline_seconds, errors);
    let added = new.tolerations.as_deref().unwrap_or_default();
    if !only_adds(added, old.tolerations.as_deref().unwrap_or_default()) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(spec.child("tolerations"), detail);
    }
    let mut expected = new.clone();
    expected.tolerations.clone_from(&old.tolerations);
    expected.active_deadline_seconds = old.active_deadline_seconds;
    keep_images(&mut expected.containers, &old.containers);
    let (init, old_init) = (&mut expected.init_containers, old.init_containers.as_deref());
    keep_images(
        init.as_deref_mut().unwrap_or_default(),
        old_init.unwrap_or_default(),
    );
    if expected != *old {
        errors.forbidden(spec, FIXED);
    }
}

fn keep_images(new: &mut [Container], old: &[Container]) {
    for (new, old) in new.iter_mut().zip(old) {
        new.image.clone_from(&old.image);
    }
}

fn validate_deadline(new: Option<i64>, old: Option<i64>, errors: &mut FieldErrors) {
    let spec = Path::root("spec");
    let path = spec.child("activeDeadlineSeconds");
    match (new, old) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path, new, "must be less than or equal to previous value");
        }
        (None, Some(old)) => {
            errors.invalid(
                path,
                "",
                format!("must be less than or equal to previous value {old}"),
            );
        }
        _ => {}
    }
}

fn only_adds(new: &[Toleration], old: &[Toleration]) -> bool {
    let untimed = |one: &Toleration| Toleration {
        toleration_seconds: None,
        ..one.clone()
    };
    old.iter()
        .all(|old| new.iter().any(|new| untimed(new) == untimed(old)))
}
