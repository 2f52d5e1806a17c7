//! What is wrong with a service's addresses and their families, of which there is only IPv4 so far.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::super::type_of;
use crate::field::{FieldErrors, Path, Verbatim};

const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(super) fn validate(spec: &ServiceSpec, path: Path<'_>, errors: &mut FieldErrors) {
    validate_cluster_ips(spec, path, errors);
    let list = path.child("externalIPs");
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        if let Some(problem) = unfit_outside(ip) {
            errors.invalid(list.index(index), ip, problem);
        }
    }
    validate_families(spec, path, errors);
    validate_ranges(spec, path, errors);
}

fn validate_cluster_ips(spec: &ServiceSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let list = path.child("clusterIPs");
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    for (index, ip) in all.iter().enumerate() {
        if ip == "None" && all.len() > 1 {
            errors.invalid(
                list.index(index),
                ip,
                "may not be set to 'None' when multiple IPs are given",
            );
        } else if ip != "None" && !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
            errors.invalid(list.index(index), ip, NOT_AN_ADDRESS);
        }
    }
    let own = spec.cluster_ip.as_deref().unwrap_or_default();
    let first = all.first().map_or("", String::as_str);
    if own != first {
        errors.invalid(list, quoted(all), "first value must match `clusterIP`");
    } else if all.len() > 1 {
        let detail = "may only hold one value: this cluster has IPv4 addresses only";
        errors.invalid(list, quoted(all), detail);
    }
}

/// Why an address cannot be one by which the service is reached from outside.
fn unfit_outside(ip: &str) -> Option<&'static str> {
    let Ok(address) = ip.parse::<IpAddr>() else {
        return Some(NOT_AN_ADDRESS);
    };
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if is_link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if address.is_multicast() {
        Some("may not be in the multicast range (224.0.0.0/4, ff00::/8)")
    } else {
        None
    }
}

fn validate_families(spec: &ServiceSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let list = path.child("ipFamilies");
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        match family.as_str() {
            "IPv4" => {}
            "IPv6" => errors.invalid(list.index(index), family, "not configured on this cluster"),
            other => errors.not_supported(list.index(index), other, &["IPv4", "IPv6"]),
        }
    }
    let path = path.child("ipFamilyPolicy");
    match spec.ip_family_policy.as_deref() {
        None | Some("SingleStack" | "PreferDualStack") => {}
        Some(both @ "RequireDualStack") => {
            errors.invalid(
                path,
                both,
                "this cluster is not configured for dual-stack services",
            );
        }
        Some(other) => {
            errors.not_supported(
                path,
                other,
                &["PreferDualStack", "RequireDualStack", "SingleStack"],
            );
        }
    }
}

fn validate_ranges(spec: &ServiceSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let Some(ranges) = spec
        .load_balancer_source_ranges
        .as_deref()
        .filter(|list| !list.is_empty())
    else {
        return;
    };
    let path = path.child("loadBalancerSourceRanges");
    if type_of(spec) != "LoadBalancer" {
        errors.forbidden(path, "may only be used when `type` is 'LoadBalancer'");
    }
    for (index, range) in ranges.iter().enumerate() {
        if !is_range(range.trim()) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.invalid(path.index(index), range, detail);
        }
    }
}

fn is_range(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    match (address.parse::<IpAddr>(), prefix.parse::<u8>()) {
        (Ok(address), Ok(prefix)) => prefix <= if address.is_ipv4() { 32 } else { 128 },
        _ => false,
    }
}

pub(super) fn validate_update(
    new: &ServiceSpec,
    old: &ServiceSpec,
    path: Path<'_>,
    errors: &mut FieldErrors,
) {
    if type_of(new) == "ExternalName" || type_of(old) == "ExternalName" {
        return;
    }
    let changed = |field: fn(&ServiceSpec) -> &Option<Vec<String>>| {
        let first = |spec| field(spec).iter().flatten().next().cloned();
        first(old).is_some_and(|before| first(new) != Some(before))
    };
    if changed(|spec| &spec.cluster_ips) {
        let list = path.child("clusterIPs");
        let shown = quoted(new.cluster_ips.as_deref().unwrap_or_default());
        errors.invalid(list.index(0), shown, "may not change once set");
    }
    if changed(|spec| &spec.ip_families) {
        let list = path.child("ipFamilies");
        let shown = quoted(new.ip_families.as_deref().unwrap_or_default());
        errors.invalid(list.index(0), shown, "may not change once set");
    }
}

/// A list as Go prints it.
fn quoted(list: &[String]) -> Verbatim {
    let shown = format!("{list:?}").replace('[', "{").replace(']', "}");
    Verbatim(format!("[]string{shown}"))
}
