//! What is wrong with probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::validate::one_of;
use crate::field::{FieldErrors, Path};
use crate::names;

const BAD_HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";

/// The probes and hooks of a container at `path`.
pub(crate) fn validate_all(
    container: &Container,
    grace: Option<i64>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    for (field, probe, once) in [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ] {
        if let Some(probe) = probe {
            validate(probe, once, path.child(field), errors);
        }
    }
    let lifecycle = path.child("lifecycle");
    let Some(hooks) = &container.lifecycle else {
        return;
    };
    for (field, handler) in [("postStart", &hooks.post_start), ("preStop", &hooks.pre_stop)] {
        if let Some(handler) = handler {
            validate_handler(handler, grace, lifecycle.child(field), errors);
        }
    }
}

fn validate(probe: &Probe, succeeds_once: bool, path: Path<'_>, errors: &mut FieldErrors) {
    let handlers = [
        probe.exec.is_some(),
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.grpc.is_some(),
    ];
    count_handlers(&handlers, path, errors);
    if let Some(get) = &probe.http_get {
        validate_http(get, path.child("httpGet"), errors);
    }
    if let Some(socket) = &probe.tcp_socket {
        validate_port(&socket.port, path.child("tcpSocket").child("port"), errors);
    }
    if let Some(exec) = &probe.exec {
        validate_exec(exec, path.child("exec"), errors);
    }
    if let Some(grpc) = &probe.grpc {
        let port = IntOrString::Int(grpc.port);
        validate_port(&port, path.child("grpc").child("port"), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let path = path.child("terminationGracePeriodSeconds");
        if !succeeds_once {
            errors.invalid(path, seconds, "must not be set for readinessProbes");
        } else if seconds <= 0 {
            errors.invalid(path, seconds, "must be greater than 0");
        }
    }
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if let Some(value) = value.filter(|value| *value < 0) {
            errors.invalid(path.child(field), value, "must be greater than or equal to 0");
        }
    }
    if succeeds_once && let Some(count) = probe.success_threshold.filter(|count| *count != 1) {
        errors.invalid(path.child("successThreshold"), count, "must be 1");
    }
}

fn validate_exec(exec: &ExecAction, path: Path<'_>, errors: &mut FieldErrors) {
    if exec.command.as_deref().is_none_or(<[String]>::is_empty) {
        errors.required(path.child("command"), "");
    }
}

fn validate_handler(
    handler: &LifecycleHandler,
    grace: Option<i64>,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let handlers = [
        handler.exec.is_some(),
        handler.http_get.is_some(),
        handler.tcp_socket.is_some(),
        handler.sleep.is_some(),
    ];
    count_handlers(&handlers, path, errors);
    if let Some(get) = &handler.http_get {
        validate_http(get, path.child("httpGet"), errors);
    }
    if let Some(exec) = &handler.exec {
        validate_exec(exec, path.child("exec"), errors);
    }
    if let Some(socket) = &handler.tcp_socket {
        validate_port(&socket.port, path.child("tcpSocket").child("port"), errors);
    }
    if let (Some(sleep), Some(grace)) = (&handler.sleep, grace)
        && !(0..=grace).contains(&sleep.seconds)
    {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(path.child("sleep"), sleep.seconds, detail);
    }
}

fn count_handlers(handlers: &[bool], path: Path<'_>, errors: &mut FieldErrors) {
    match handlers.iter().filter(|is_set| **is_set).count() {
        0 => errors.required(path, "must specify a handler type"),
        1 => {}
        _ => errors.forbidden(path, "may not specify more than 1 handler type"),
    }
}

fn validate_http(get: &HTTPGetAction, path: Path<'_>, errors: &mut FieldErrors) {
    if get.path.as_deref().is_none_or(str::is_empty) {
        errors.required(path.child("path"), "");
    }
    validate_port(&get.port, path.child("port"), errors);
    one_of(
        get.scheme.as_deref().unwrap_or_default(),
        &["HTTP", "HTTPS"],
        path.child("scheme"),
        errors,
    );
    for header in get.http_headers.iter().flatten() {
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if header.name.is_empty() || !header.name.bytes().all(is_name_byte) {
            errors.invalid(path.child("httpHeaders"), &header.name, BAD_HEADER);
        }
    }
}

/// A port by number or by name.
pub(crate) fn validate_port(port: &IntOrString, path: Path<'_>, errors: &mut FieldErrors) {
    match port {
        IntOrString::Int(1..=65535) => {}
        IntOrString::Int(number) => {
            errors.invalid(path, *number, "must be between 1 and 65535, inclusive");
        }
        IntOrString::String(name) => {
            for problem in names::port_name(name) {
                errors.invalid(path, name, problem);
            }
        }
    }
}
