//! What is wrong with how a pod finds names: its resolver and its hosts file.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};

use crate::field::{FieldErrors, Path, Verbatim};
use crate::names;

const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;
const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// `dnsConfig` and `hostAliases` of a spec.
pub(super) fn validate(spec: &PodSpec, path: Path<'_>, errors: &mut FieldErrors) {
    let is_none = spec.dns_policy.as_deref() == Some("None");
    let config = path.child("dnsConfig");
    match &spec.dns_config {
        None if is_none => errors.required(config, "must provide `dnsConfig` when `dnsPolicy` is None"),
        None => {}
        Some(own) => {
            if is_none && own.nameservers.as_deref().unwrap_or_default().is_empty() {
                let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                errors.required(config.child("nameservers"), detail);
            }
            validate_config(own, config, errors);
        }
    }
    let aliases = path.child("hostAliases");
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = aliases.index(index);
        if alias.ip.parse::<IpAddr>().is_err() {
            errors.invalid(path.child("ip"), &alias.ip, NOT_AN_ADDRESS);
        }
        for name in alias.hostnames.iter().flatten() {
            for problem in names::subdomain(name) {
                errors.invalid(path.child("hostnames"), name, problem);
            }
        }
    }
}

fn validate_config(config: &PodDNSConfig, path: Path<'_>, errors: &mut FieldErrors) {
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let list = path.child("nameservers");
    if servers.len() > SERVERS_MAX {
        let detail = format!("must not have more than {SERVERS_MAX} nameservers");
        errors.invalid(list, go_list(servers), detail);
    }
    for (index, server) in servers.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() {
            errors.invalid(list.index(index), server, NOT_AN_ADDRESS);
        }
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let list = path.child("searches");
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.invalid(list, go_list(searches), detail);
    }
    if searches.join(" ").len() > SEARCH_BYTES_MAX {
        let detail = format!(
            "must not have more than {SEARCH_BYTES_MAX} characters (including spaces) in the search list"
        );
        errors.invalid(list, go_list(searches), detail);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        for problem in names::subdomain(search.trim_end_matches('.')) {
            errors.invalid(list.index(index), search, problem);
        }
    }
    let list = path.child("options");
    for (index, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().is_none_or(str::is_empty) {
            errors.required(list.index(index), "must not be empty");
        }
    }
}

fn go_list(values: &[String]) -> Verbatim {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    Verbatim(format!("[]string{{{}}}", quoted.join(", ")))
}
