//! What only services of some types may have.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::super::{has_health_check, type_of};
use crate::field::{FieldErrors, Path, Verbatim};

/// Kubelet's own port, which no load balancer may take over.
const KUBELET_PORT: i32 = 10_250;
const BALANCERS_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

pub(super) fn validate(spec: &ServiceSpec, path: Path<'_>, errors: &mut FieldErrors) {
    validate_ports(spec, path.child("ports"), errors);
    if type_of(spec) == "LoadBalancer" {
        return;
    }
    if spec.allocate_load_balancer_node_ports.is_some() {
        errors.forbidden(path.child("allocateLoadBalancerNodePorts"), BALANCERS_ONLY);
    }
    if spec.load_balancer_class.is_some() {
        errors.forbidden(path.child("loadBalancerClass"), BALANCERS_ONLY);
    }
}

fn validate_ports(spec: &ServiceSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let path = path.index(index);
        if type_of(spec) == "LoadBalancer" && port.port == KUBELET_PORT {
            let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
            errors.invalid(path.child("port"), port.port, detail);
        }
        let Some(node_port) = port.node_port.filter(|port| *port != 0) else {
            continue;
        };
        let path = path.child("nodePort");
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if !matches!(type_of(spec), "NodePort" | "LoadBalancer") {
            errors.forbidden(
                path,
                format!("may not be used when `type` is '{}'", type_of(spec)),
            );
        } else if !seen.insert((node_port, protocol)) {
            errors.duplicate(path, Verbatim(format!("{node_port}/{protocol}")));
        }
    }
}

pub(super) fn validate_update(
    new: &ServiceSpec,
    old: &ServiceSpec,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    let both_balance = type_of(new) == "LoadBalancer" && type_of(old) == "LoadBalancer";
    if both_balance && new.load_balancer_class != old.load_balancer_class {
        errors.invalid(
            path.child("loadBalancerClass"),
            new.load_balancer_class.as_deref().unwrap_or_default(),
            "may not change once set",
        );
    }
    let port = |spec: &ServiceSpec| spec.health_check_node_port.unwrap_or(0);
    if has_health_check(new) && has_health_check(old) && port(old) != 0 && port(new) != port(old) {
        errors.invalid(path.child("healthCheckNodePort"), port(new), "field is immutable");
    }
}
