//! What is wrong with probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::validate::one_of;
use crate::field::{FieldErrors, Path};
use crate::names;

/// The probes and hooks of a container at `path`.
pub(crate) fn validate_all(container: &Container, path: Path<'_>, errors: &mut FieldErrors) {
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
            validate_handler(handler, lifecycle.child(field), errors);
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
    if let Some(exec) = &probe.exec
        && exec.command.as_deref().is_none_or(<[String]>::is_empty)
    {
        errors.required(path.child("exec").child("command"), "");
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

fn validate_handler(handler: &LifecycleHandler, path: Path<'_>, errors: &mut FieldErrors) {
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
