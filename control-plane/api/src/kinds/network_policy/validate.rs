//! What is wrong with a network policy.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::workload::validate_selector;
use crate::field::{FieldErrors, Path, Verbatim};
use crate::pod_spec::validate_port;

const TYPES: [&str; 2] = ["Ingress", "Egress"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

pub(super) fn validate(policy: &NetworkPolicy, errors: &mut FieldErrors) {
    let path = Path::root("spec");
    let Some(spec) = &policy.spec else {
        errors.required(path, "");
        return;
    };
    if let Some(selector) = &spec.pod_selector {
        validate_selector(selector, path.child("podSelector"), errors);
    }
    let ingress = path.child("ingress");
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = ingress.index(index);
        validate_ports(rule.ports.as_deref(), path.child("ports"), errors);
        validate_peers(rule.from.as_deref(), path.child("from"), errors);
    }
    let egress = path.child("egress");
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let path = egress.index(index);
        validate_ports(rule.ports.as_deref(), path.child("ports"), errors);
        validate_peers(rule.to.as_deref(), path.child("to"), errors);
    }
    validate_types(
        spec.policy_types.as_deref().unwrap_or_default(),
        path.child("policyTypes"),
        errors,
    );
}

fn validate_types(types: &[String], path: Path<'_>, errors: &mut FieldErrors) {
    if types.len() > TYPES.len() {
        let shown = Verbatim(format!("{types:?}"));
        errors.invalid(path, shown, "may not specify more than two policyTypes");
        return;
    }
    for (index, type_) in types.iter().enumerate() {
        if !TYPES.contains(&type_.as_str()) {
            errors.not_supported(path.index(index), type_, &TYPES);
        }
    }
}

fn validate_ports(ports: Option<&[NetworkPolicyPort]>, list: Path<'_>, errors: &mut FieldErrors) {
    for (index, port) in ports.unwrap_or_default().iter().enumerate() {
        let path = list.index(index);
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !PROTOCOLS.contains(&protocol) {
            errors.not_supported(path.child("protocol"), protocol, &PROTOCOLS);
        }
        if let Some(number) = &port.port {
            validate_port(number, path.child("port"), errors);
        }
        validate_end(port, path.child("endPort"), errors);
    }
}

fn validate_end(port: &NetworkPolicyPort, path: Path<'_>, errors: &mut FieldErrors) {
    let Some(end) = port.end_port else {
        return;
    };
    match port.port {
        None => errors.invalid(path, end, "may not be specified when `port` is not specified"),
        Some(IntOrString::String(_)) => {
            errors.invalid(path, end, "may not be specified when `port` is non-numeric");
        }
        Some(IntOrString::Int(first)) => {
            if end < first {
                errors.invalid(path, end, "must be greater than or equal to `port`");
            }
            validate_port(&IntOrString::Int(end), path, errors);
        }
    }
}

fn validate_peers(peers: Option<&[NetworkPolicyPeer]>, list: Path<'_>, errors: &mut FieldErrors) {
    for (index, peer) in peers.unwrap_or_default().iter().enumerate() {
        let path = list.index(index);
        if let Some(selector) = &peer.pod_selector {
            validate_selector(selector, path.child("podSelector"), errors);
        }
        if let Some(selector) = &peer.namespace_selector {
            validate_selector(selector, path.child("namespaceSelector"), errors);
        }
        let has_selector = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match &peer.ip_block {
            None if !has_selector => errors.required(path, "must specify a peer"),
            None => {}
            Some(block) => {
                validate_block(block, path.child("ipBlock"), errors);
                if has_selector {
                    errors.forbidden(path, "may not specify both ipBlock and another peer");
                }
            }
        }
    }
}

fn validate_block(block: &IPBlock, path: Path<'_>, errors: &mut FieldErrors) {
    const DETAIL: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    if block.cidr.is_empty() {
        errors.required(path.child("cidr"), "");
        return;
    }
    let Some(whole) = cidr(&block.cidr) else {
        errors.invalid(path.child("cidr"), &block.cidr, DETAIL);
        return;
    };
    let list = path.child("except");
    for (index, text) in block.except.iter().flatten().enumerate() {
        match cidr(text) {
            None => errors.invalid(list.index(index), text, DETAIL),
            Some(part) if !is_strictly_within(part, whole) => {
                errors.invalid(list.index(index), text, "must be a strict subset of `cidr`");
            }
            Some(_) => {}
        }
    }
}

/// Address and prefix of a range.
fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix: u8 = prefix.parse().ok().filter(|_| is_number)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= bits).then_some((address, prefix))
}

fn is_strictly_within((address, prefix): (IpAddr, u8), (whole, whole_prefix): (IpAddr, u8)) -> bool {
    if prefix <= whole_prefix {
        return false;
    }
    match (address, whole) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let differing = one.to_bits() ^ other.to_bits();
            differing.checked_shr(32 - u32::from(whole_prefix)).unwrap_or(0) == 0
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let differing = one.to_bits() ^ other.to_bits();
            differing.checked_shr(128 - u32::from(whole_prefix)).unwrap_or(0) == 0
        }
        _ => false,
    }
}
