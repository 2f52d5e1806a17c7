//! Ephemeral containers: what may be added to a running pod to look into it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

use super::containers::{Surroundings, validate};
use crate::field::{FieldErrors, Path};
use crate::static_pods::is_mirror;

const NOT_HERE: &str = "cannot be set for an Ephemeral Container";

/// Takes over the ephemeral containers and nothing else.
pub(crate) fn take(pod: &mut Pod, from: &Pod) {
    let wanted = from
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.clone());
    pod.spec.get_or_insert_default().ephemeral_containers = wanted;
}

/// New pods have none.
pub(crate) fn validate_create(pod: &Pod, errors: &mut FieldErrors) {
    let list = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.as_ref());
    if list.is_some_and(|list| !list.is_empty()) {
        let spec = Path::root("spec");
        errors.forbidden(spec.child("ephemeralContainers"), "cannot be set on create");
    }
}

/// They are only ever added.
pub(crate) fn validate_update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    if is_mirror(old) {
        errors.forbidden(Path::root(""), "static pods do not support ephemeral containers");
        return;
    }
    let spec = Path::root("spec");
    let path = spec.child("ephemeralContainers");
    for old in list(old) {
        match list(new).iter().find(|new| new.name == old.name) {
            None => {
                let detail = format!(
                    "existing ephemeral containers {:?} may not be removed\n",
                    old.name
                );
                errors.forbidden(path, detail);
            }
            Some(new) if new != old => {
                let detail = format!(
                    "existing ephemeral containers {:?} may not be changed\n",
                    old.name
                );
                errors.forbidden(path, detail);
            }
            Some(_) => {}
        }
    }
}

fn list(pod: &Pod) -> &[EphemeralContainer] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.ephemeral_containers.as_deref())
        .unwrap_or_default()
}

/// All ephemeral containers of a spec. `converted` are the same ones as ordinary containers.
pub(super) fn validate_all<'a>(
    spec: &'a PodSpec,
    converted: &'a [Container],
    around: &mut Surroundings<'a>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let ordinary = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let targets: BTreeSet<&str> = ordinary.map(|container| container.name.as_str()).collect();
    let all = spec.ephemeral_containers.iter().flatten();
    for (index, (one, container)) in all.zip(converted).enumerate() {
        let path = path.index(index);
        validate(container, around, path, errors);
        validate_fields(one, path, errors);
        let target = one.target_container_name.as_deref().unwrap_or_default();
        if !target.is_empty() && !targets.contains(target) {
            errors.not_found(path.child("targetContainerName"), target);
        }
    }
}

/// Nothing that a service would rely on.
fn validate_fields(one: &EphemeralContainer, path: Path<'_>, errors: &mut FieldErrors) {
    let has_resources = one
        .resources
        .as_ref()
        .is_some_and(|own| own.limits.is_some() || own.requests.is_some() || own.claims.is_some());
    for (field, is_set) in [
        ("ports", one.ports.as_ref().is_some_and(|ports| !ports.is_empty())),
        ("resources", has_resources),
        ("livenessProbe", one.liveness_probe.is_some()),
        ("readinessProbe", one.readiness_probe.is_some()),
        ("startupProbe", one.startup_probe.is_some()),
        ("lifecycle", one.lifecycle.is_some()),
        ("restartPolicy", one.restart_policy.is_some()),
        (
            "resizePolicy",
            one.resize_policy.as_ref().is_some_and(|list| !list.is_empty()),
        ),
    ] {
        if is_set {
            errors.forbidden(path.child(field), NOT_HERE);
        }
    }
    let mounts = path.child("volumeMounts");
    for (index, mount) in one.volume_mounts.iter().flatten().enumerate() {
        let path = mounts.index(index);
        for (field, value) in [
            ("subPath", &mount.sub_path),
            ("subPathExpr", &mount.sub_path_expr),
        ] {
            if value.as_deref().is_some_and(|value| !value.is_empty()) {
                errors.forbidden(path.child(field), NOT_HERE);
            }
        }
    }
}

/// The ephemeral containers as ordinary ones.
pub(super) fn converted(spec: &PodSpec) -> Vec<Container> {
    let all = spec.ephemeral_containers.iter().flatten();
    all.map(ephemeral_as_container).collect()
}

/// What an ephemeral container has in common with an ordinary one.
pub fn ephemeral_as_container(ephemeral: &EphemeralContainer) -> Container {
    let one = ephemeral.clone();
    Container {
        args: one.args,
        command: one.command,
        env: one.env,
        env_from: one.env_from,
        image: one.image,
        image_pull_policy: one.image_pull_policy,
        name: one.name,
        security_context: one.security_context,
        stdin: one.stdin,
        stdin_once: one.stdin_once,
        termination_message_path: one.termination_message_path,
        termination_message_policy: one.termination_message_policy,
        tty: one.tty,
        volume_devices: one.volume_devices,
        volume_mounts: one.volume_mounts,
        working_dir: one.working_dir,
        ..Container::default()
    }
}
