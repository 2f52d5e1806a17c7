//! Endpoints

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path};
use crate::kind::{Column, Kind};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Endpoints", "Addresses and ports that are ready."),
    Column::AGE,
];
const SHOWN_MAX: usize = 3;

pub(crate) fn kind() -> Kind {
    Builder::<Endpoints>::namespaced("endpoints")
        .short_names(&["ep"])
        .columns(COLUMNS, cells)
        .defaults(set_defaults)
        .validate(validate)
        .build()
}

fn set_defaults(endpoints: &mut Endpoints) {
    let subsets = endpoints.subsets.iter_mut().flatten();
    for port in subsets.filter_map(|subset| subset.ports.as_mut()).flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
    }
}

fn validate(endpoints: &Endpoints, errors: &mut FieldErrors) {
    let list = Path::root("subsets");
    for (index, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let path = list.index(index);
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
        if addresses.is_empty() && not_ready.is_empty() {
            errors.required(path, "must specify `addresses` or `notReadyAddresses`");
        }
        validate_addresses(addresses, path.child("addresses"), errors);
        validate_addresses(not_ready, path.child("notReadyAddresses"), errors);
        let ports = subset.ports.as_deref().unwrap_or_default();
        validate_ports(ports, path.child("ports"), errors);
    }
}

fn validate_addresses(addresses: &[EndpointAddress], path: Path<'_>, errors: &mut FieldErrors) {
    for (index, address) in addresses.iter().enumerate() {
        if address.ip.parse::<IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(path.index(index).child("ip"), &address.ip, detail);
        }
    }
}

fn validate_ports(ports: &[EndpointPort], path: Path<'_>, errors: &mut FieldErrors) {
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        if ports.len() > 1 && port.name.as_deref().is_none_or(str::is_empty) {
            errors.required(path.child("name"), "");
        }
        if !(1..=65535).contains(&port.port) {
            errors.invalid(
                path.child("port"),
                port.port,
                "must be between 1 and 65535, inclusive",
            );
        }
    }
}

fn cells(endpoints: &Endpoints, now: Timestamp) -> Vec<Value> {
    let meta = &endpoints.metadata;
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    vec![name_cell(meta), ready_text(subsets).into(), age_cell(meta, now)]
}

/// The first few addresses, and how many more there are.
fn ready_text(subsets: &[EndpointSubset]) -> String {
    let all: Vec<String> = subsets.iter().flat_map(ready_of).collect();
    let mut text = all.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(",");
    if all.is_empty() {
        text.push_str("<none>");
    } else if all.len() > SHOWN_MAX {
        text.push_str(&format!(" + {} more...", all.len() - SHOWN_MAX));
    }
    text
}

fn ready_of(subset: &EndpointSubset) -> Vec<String> {
    let addresses = subset.addresses.as_deref().unwrap_or_default();
    let host_port = |address: &EndpointAddress, port: i32| match address.ip.contains(':') {
        true => format!("[{}]:{port}", address.ip),
        false => format!("{}:{port}", address.ip),
    };
    match subset.ports.as_deref().unwrap_or_default() {
        [] => addresses.iter().map(|address| address.ip.clone()).collect(),
        ports => ports
            .iter()
            .flat_map(|port| addresses.iter().map(|address| host_port(address, port.port)))
            .collect(),
    }
}
