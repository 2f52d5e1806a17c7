//! What is wrong with an ingress.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressServiceBackend};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::field::{FieldErrors, Path, Verbatim};
use crate::ingresses::CLASS_ANNOTATION;
use crate::{names, pod_spec};

/// What a path may not contain, since it might mean another one.
const SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const SUFFIXES: [&str; 2] = ["/..", "/."];

pub(super) fn validate(ingress: &Ingress, errors: &mut FieldErrors) {
    let path = Path::root("spec");
    let spec = ingress.spec.clone().unwrap_or_default();
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let shown = serde_json::to_string(&spec).unwrap_or_default();
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(path, Verbatim(shown), detail);
    }
    if let Some(backend) = &spec.default_backend {
        validate_backend(backend, path.child("defaultBackend"), errors);
    }
    let list = path.child("rules");
    for (index, rule) in rules.iter().enumerate() {
        let path = list.index(index);
        if let Some(host) = rule.host.as_deref().filter(|host| !host.is_empty()) {
            validate_host(host, path.child("host"), errors);
        }
        if let Some(http) = &rule.http {
            let path = path.child("http");
            validate_paths(&http.paths, path.child("paths"), errors);
        }
    }
    let list = path.child("tls");
    for (index, tls) in spec.tls.iter().flatten().enumerate() {
        let path = list.index(index);
        let hosts = path.child("hosts");
        for (index, host) in tls.hosts.iter().flatten().enumerate() {
            validate_name(host, hosts.index(index), errors);
        }
    }
    validate_class(ingress, path.child("ingressClassName"), errors);
}

fn validate_class(ingress: &Ingress, path: Path<'_>, errors: &mut FieldErrors) {
    let Some(class) = ingress
        .spec
        .as_ref()
        .and_then(|spec| spec.ingress_class_name.as_deref())
    else {
        return;
    };
    for problem in names::subdomain(class) {
        errors.invalid(path, class, problem);
    }
    let annotations = ingress.metadata.annotations.as_ref();
    if let Some(annotated) = annotations.and_then(|all| all.get(CLASS_ANNOTATION))
        && annotated != class
    {
        let path = Path::root("metadata");
        let path = path.child("annotations");
        let detail = "can not be set when the class field is also set";
        errors.invalid(path.key(CLASS_ANNOTATION), annotated, detail);
    }
}

fn validate_host(host: &str, path: Path<'_>, errors: &mut FieldErrors) {
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
    }
    validate_name(host, path, errors);
}

/// A name of a host, of which the first label may be `*`.
fn validate_name(host: &str, path: Path<'_>, errors: &mut FieldErrors) {
    let rest = host.strip_prefix("*.").unwrap_or(host);
    if rest.contains('*') {
        let detail = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        errors.invalid(path, host, detail);
        return;
    }
    for problem in names::subdomain(rest) {
        errors.invalid(path, host, problem);
    }
}

fn validate_paths(paths: &[HTTPIngressPath], list: Path<'_>, errors: &mut FieldErrors) {
    if paths.is_empty() {
        errors.required(list, "");
    }
    for (index, one) in paths.iter().enumerate() {
        let path = list.index(index);
        let text = one.path.as_deref().unwrap_or_default();
        match one.path_type.as_str() {
            "" => errors.required(path.child("pathType"), "pathType must be specified"),
            "Exact" | "Prefix" => validate_path(text, path.child("path"), errors),
            "ImplementationSpecific" if text.is_empty() || text.starts_with('/') => {}
            "ImplementationSpecific" => {
                errors.invalid(path.child("path"), text, "must be an absolute path");
            }
            other => {
                let supported = ["Exact", "ImplementationSpecific", "Prefix"];
                errors.not_supported(path.child("pathType"), other, &supported);
            }
        }
        validate_backend(&one.backend, path.child("backend"), errors);
    }
}

fn validate_path(text: &str, path: Path<'_>, errors: &mut FieldErrors) {
    if !text.starts_with('/') {
        errors.invalid(path, text, "must be an absolute path");
    }
    if text.is_empty() {
        return;
    }
    for sequence in SEQUENCES.iter().filter(|sequence| text.contains(**sequence)) {
        errors.invalid(path, text, format!("must not contain '{sequence}'"));
    }
    for suffix in SUFFIXES.iter().filter(|suffix| text.ends_with(**suffix)) {
        errors.invalid(path, text, format!("cannot end with '{suffix}'"));
    }
}

fn validate_backend(backend: &IngressBackend, path: Path<'_>, errors: &mut FieldErrors) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
        (None, Some(service)) => validate_service(service, path, errors),
        (Some(resource), None) => {
            let path = path.child("resource");
            for (field, value) in [("kind", &resource.kind), ("name", &resource.name)] {
                if value.is_empty() {
                    errors.required(path.child(field), "");
                }
            }
        }
    }
}

fn validate_service(service: &IngressServiceBackend, path: Path<'_>, errors: &mut FieldErrors) {
    let own = path.child("service");
    if service.name.is_empty() {
        errors.required(own.child("name"), "");
    } else {
        for problem in names::label_1035(&service.name) {
            errors.invalid(own.child("name"), &service.name, problem);
        }
    }
    let port = service.port.clone().unwrap_or_default();
    let name = port.name.filter(|name| !name.is_empty());
    let number = port.number.filter(|number| *number != 0);
    let port = own.child("port");
    match (name, number) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both port name & port number"),
        (None, None) => errors.required(path, "port name or number is required"),
        (Some(name), None) => {
            pod_spec::validate_port(&IntOrString::String(name), port.child("name"), errors);
        }
        (None, Some(number)) => {
            pod_spec::validate_port(&IntOrString::Int(number), port.child("number"), errors);
        }
    }
}
