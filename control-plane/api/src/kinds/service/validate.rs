//! What is wrong with a service.

mod addresses;
mod types;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::{has_health_check, is_external, type_of};
use crate::field::{FieldErrors, Path, Verbatim};
use crate::{metadata, names};

const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

pub(super) fn validate(service: &Service, errors: &mut FieldErrors) {
    let path = Path::root("spec");
    let Some(spec) = &service.spec else {
        errors.required(path, "");
        return;
    };
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !headless && type_of(spec) != "ExternalName" {
        errors.required(path.child("ports"), "");
    }
    match type_of(spec) {
        "ClusterIP" => {}
        "NodePort" | "LoadBalancer" if headless => {
            let detail = format!("may not be set to 'None' for {} services", type_of(spec));
            errors.invalid(path.child("clusterIPs").index(0), "None", detail);
        }
        "NodePort" | "LoadBalancer" => {}
        "ExternalName" => validate_external_name(spec, path, errors),
        other => {
            let supported = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
            errors.not_supported(path.child("type"), other, &supported);
        }
    }
    validate_ports(ports, path.child("ports"), errors);
    metadata::validate_labels(spec.selector.as_ref(), path.child("selector"), errors);
    let affinity = spec.session_affinity.as_deref().unwrap_or_default();
    if !matches!(affinity, "None" | "ClientIP") {
        errors.not_supported(path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    }
    addresses::validate(spec, path, errors);
    types::validate(spec, path, errors);
    validate_policies(spec, path, errors);
}

fn validate_external_name(spec: &ServiceSpec, path: Path<'_>, errors: &mut FieldErrors) {
    if spec.cluster_ips.as_ref().is_some_and(|list| !list.is_empty()) {
        errors.forbidden(
            path.child("clusterIPs"),
            "may not be set for ExternalName services",
        );
    }
    let name = spec.external_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        errors.required(path.child("externalName"), "");
        return;
    }
    for problem in names::subdomain(name.strip_suffix('.').unwrap_or(name)) {
        errors.invalid(path.child("externalName"), name, problem);
    }
}

fn validate_ports(ports: &[ServicePort], path: Path<'_>, errors: &mut FieldErrors) {
    let (mut names_seen, mut ports_seen) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(path.child("name"), "");
            }
        } else {
            for problem in names::label(name) {
                errors.invalid(path.child("name"), name, problem);
            }
            if !names_seen.insert(name) {
                errors.duplicate(path.child("name"), name);
            }
        }
        if !(1..=65535).contains(&port.port) {
            errors.invalid(path.child("port"), port.port, PORT_RANGE);
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            errors.not_supported(path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
        if let Some(target) = &port.target_port {
            crate::pod_spec::validate_port(target, path.child("targetPort"), errors);
        }
        if !ports_seen.insert((port.port, protocol)) {
            errors.duplicate(path, Verbatim(format!("{}/{protocol}", port.port)));
        }
    }
}

fn validate_policies(spec: &ServiceSpec, path: Path<'_>, errors: &mut FieldErrors) {
    for (field, value) in [
        ("internalTrafficPolicy", &spec.internal_traffic_policy),
        ("externalTrafficPolicy", &spec.external_traffic_policy),
    ] {
        match value.as_deref() {
            None | Some("Cluster" | "Local") => {}
            Some(other) => errors.not_supported(path.child(field), other, &["Cluster", "Local"]),
        }
    }
    if spec.external_traffic_policy.is_some() && !is_external(spec) {
        let detail = "may only be set for externally-accessible services";
        let value = spec.external_traffic_policy.as_deref().unwrap_or_default();
        errors.invalid(path.child("externalTrafficPolicy"), value, detail);
    }
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0)
        && !has_health_check(spec)
    {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(path.child("healthCheckNodePort"), port, detail);
    }
    let distribution = spec.traffic_distribution.as_deref();
    let distributions = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    if let Some(other) = distribution.filter(|known| !distributions.contains(known)) {
        errors.not_supported(path.child("trafficDistribution"), other, &distributions);
    }
    if spec.session_affinity.as_deref() == Some("None") && spec.session_affinity_config.is_some() {
        let detail = "must not be set when session affinity is None";
        errors.forbidden(path.child("sessionAffinityConfig"), detail);
    }
    if let Some(seconds) = affinity_seconds(spec)
        && !(1..=86_400).contains(&seconds)
    {
        let detail = "must be greater than 0 and less than 86400";
        let path = path.child("sessionAffinityConfig");
        let path = path.child("clientIP");
        errors.invalid(path.child("timeoutSeconds"), seconds, detail);
    }
}

fn affinity_seconds(spec: &ServiceSpec) -> Option<i32> {
    spec.session_affinity_config
        .as_ref()?
        .client_ip
        .as_ref()?
        .timeout_seconds
}

pub(super) fn validate_update(new: &Service, old: &Service, errors: &mut FieldErrors) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    let path = Path::root("spec");
    types::validate_update(new, old, path, errors);
    addresses::validate_update(new, old, path, errors);
}
