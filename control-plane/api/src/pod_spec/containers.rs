//! What is wrong with containers.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec, VolumeMount};

use super::validate::{one_of, validate_id};
use super::{env, ephemeral, probes, resize, resources, volumes};
use crate::field::{FieldErrors, Path};
use crate::names;

const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
const ONLY_SIDECARS: &str = "may not be set for init containers without restartPolicy=Always";

/// What a container is checked against.
pub(super) struct Surroundings<'a> {
    volumes: &'a BTreeSet<&'a str>,
    host_network: bool,
    restart_policy: Option<&'a str>,
    names: BTreeSet<&'a str>,
    host_ports: BTreeSet<(i32, &'a str, &'a str)>,
}

/// All containers of a spec.
pub(crate) fn validate_all(
    spec: &PodSpec,
    volumes: &BTreeSet<&str>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let grace = spec.termination_grace_period_seconds;
    let converted = ephemeral::converted(spec);
    let mut around = Surroundings {
        volumes,
        host_network: spec.host_network == Some(true),
        restart_policy: spec.restart_policy.as_deref(),
        names: BTreeSet::new(),
        host_ports: BTreeSet::new(),
    };
    let list = path.child("containers");
    if spec.containers.is_empty() {
        errors.required(list, "");
    }
    for (index, container) in spec.containers.iter().enumerate() {
        validate(container, &mut around, list.index(index), errors);
        probes::validate_all(container, grace, list.index(index), errors);
    }
    let list = path.child("initContainers");
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = list.index(index);
        around.host_ports.clear();
        validate(container, &mut around, path, errors);
        validate_init(container, grace, path, errors);
    }
    around.host_ports.clear();
    let list = path.child("ephemeralContainers");
    ephemeral::validate_all(spec, &converted, &mut around, list, errors);
}

fn validate_init(container: &Container, grace: Option<i64>, path: Path<'_>, errors: &mut FieldErrors) {
    if container.restart_policy.as_deref() == Some("Always") {
        probes::validate_all(container, grace, path, errors);
        return;
    }
    for (field, is_set) in [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ] {
        if is_set {
            errors.forbidden(path.child(field), ONLY_SIDECARS);
        }
    }
}

pub(super) fn validate<'a>(
    container: &'a Container,
    around: &mut Surroundings<'a>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    validate_name(&container.name, around, path.child("name"), errors);
    validate_image(
        container.image.as_deref().unwrap_or_default(),
        path.child("image"),
        errors,
    );
    one_of(
        container.image_pull_policy.as_deref().unwrap_or_default(),
        &["Always", "IfNotPresent", "Never"],
        path.child("imagePullPolicy"),
        errors,
    );
    one_of(
        container
            .termination_message_policy
            .as_deref()
            .unwrap_or_default(),
        &["FallbackToLogsOnError", "File"],
        path.child("terminationMessagePolicy"),
        errors,
    );
    if let Some(policy) = container.restart_policy.as_deref() {
        one_of(
            policy,
            &["Always", "Never", "OnFailure"],
            path.child("restartPolicy"),
            errors,
        );
    }
    validate_rules(container, path, errors);
    resize::validate_policy(container, around.restart_policy, path, errors);
    validate_ports(
        container.ports.as_deref().unwrap_or_default(),
        around,
        path.child("ports"),
        errors,
    );
    env::validate(container, path, errors);
    if let Some(own) = &container.resources {
        resources::validate(own, path.child("resources"), errors);
    }
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    validate_mounts(mounts, around.volumes, path.child("volumeMounts"), errors);
    if let Some(context) = &container.security_context {
        let path = path.child("securityContext");
        validate_id(context.run_as_user, path.child("runAsUser"), errors);
        validate_id(context.run_as_group, path.child("runAsGroup"), errors);
    }
}

/// Which exit codes are worth another start.
fn validate_rules(container: &Container, path: Path<'_>, errors: &mut FieldErrors) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    if !rules.is_empty() && container.restart_policy.is_none() {
        let detail = "must specify restartPolicy when restart rules are used";
        errors.required(path.child("restartPolicy"), detail);
    }
    let list = path.child("restartPolicyRules");
    for (index, rule) in rules.iter().enumerate() {
        let path = list.index(index);
        one_of(&rule.action, &["Restart"], path.child("action"), errors);
        let on = path.child("exitCodes");
        match &rule.exit_codes {
            None => errors.required(on, "must be specified"),
            Some(codes) => one_of(&codes.operator, &["In", "NotIn"], on.child("operator"), errors),
        }
    }
}

fn validate_name<'a>(name: &'a str, around: &mut Surroundings<'a>, path: Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    for problem in names::label(name) {
        errors.invalid(path, name, problem);
    }
    if !around.names.insert(name) {
        errors.duplicate(path, name);
    }
}

fn validate_image(image: &str, path: Path<'_>, errors: &mut FieldErrors) {
    if image.is_empty() {
        errors.required(path, "");
    } else if image.trim() != image {
        errors.invalid(path, image, "must not have leading or trailing whitespace");
    }
}

fn validate_ports<'a>(
    ports: &'a [ContainerPort],
    around: &mut Surroundings<'a>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let problems = names::port_name(name);
            for problem in &problems {
                errors.invalid(path.child("name"), name, problem);
            }
            if problems.is_empty() && !seen.insert(name) {
                errors.duplicate(path.child("name"), name);
            }
        }
        match port.container_port {
            0 => errors.required(path.child("containerPort"), ""),
            1..=65535 => {}
            number => errors.invalid(path.child("containerPort"), number, PORT_RANGE),
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        one_of(protocol, &["SCTP", "TCP", "UDP"], path.child("protocol"), errors);
        validate_host_port(port, around, path.child("hostPort"), errors);
    }
}

fn validate_host_port<'a>(
    port: &'a ContainerPort,
    around: &mut Surroundings<'a>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let number = port.host_port.unwrap_or(0);
    if number == 0 {
        return;
    }
    if !(1..=65535).contains(&number) {
        errors.invalid(path, number, PORT_RANGE);
    } else if around.host_network && number != port.container_port {
        errors.invalid(
            path,
            number,
            "must match `containerPort` when `hostNetwork` is true",
        );
    }
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let address = port.host_ip.as_deref().unwrap_or_default();
    if !around.host_ports.insert((number, protocol, address)) {
        let port = format!("{protocol}/{address}/{number}");
        errors.duplicate(path, crate::field::Verbatim(port));
    }
}

fn validate_mounts(
    mounts: &[VolumeMount],
    volumes: &BTreeSet<&str>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let mut seen = BTreeSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = path.index(index);
        if mount.name.is_empty() {
            errors.required(path.child("name"), "");
        } else if !volumes.contains(mount.name.as_str()) {
            errors.not_found(path.child("name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            errors.required(path.child("mountPath"), "");
        } else if !seen.insert(mount.mount_path.as_str()) {
            errors.invalid(path.child("mountPath"), &mount.mount_path, "must be unique");
        }
        volumes::validate_local_path(
            mount.sub_path.as_deref().unwrap_or_default(),
            path.child("subPath"),
            errors,
        );
    }
}
