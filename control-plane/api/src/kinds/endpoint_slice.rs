//! EndpointSlice

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::field::{FieldErrors, Path, Verbatim};
use crate::kind::{Column, Kind};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("AddressType", "Type of address carried by this EndpointSlice."),
    Column::text("Ports", "Network ports exposed by each endpoint in this slice."),
    Column::text("Endpoints", "Addresses of the endpoints in this slice."),
    Column::AGE,
];
const SHOWN_MAX: usize = 3;
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

pub(crate) fn kind() -> Kind {
    Builder::<EndpointSlice>::namespaced("endpointslice")
        .columns(COLUMNS, cells)
        .defaults(set_defaults)
        .generation(|slice| &slice.endpoints)
        .validate(validate)
        .validate_update(validate_update)
        .build()
}

fn set_defaults(slice: &mut EndpointSlice) {
    for port in slice.ports.iter_mut().flatten() {
        port.name.get_or_insert_default();
        port.protocol.get_or_insert_with(|| "TCP".into());
    }
}

fn validate(slice: &EndpointSlice, errors: &mut FieldErrors) {
    let path = Path::root("addressType");
    match slice.address_type.as_str() {
        "" => errors.required(path, ""),
        own if !TYPES.contains(&own) => errors.not_supported(path, own, &TYPES),
        _ => {}
    }
    let list = Path::root("endpoints");
    if slice.endpoints.len() > ENDPOINTS_MAX {
        errors.invalid(
            list,
            slice.endpoints.len(),
            format!("must have at most {ENDPOINTS_MAX} items"),
        );
    }
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        let path = list.index(index);
        let path = path.child("addresses");
        match endpoint.addresses.len() {
            0 => errors.required(path, "must contain at least 1 address"),
            count if count > ADDRESSES_MAX => {
                errors.invalid(path, count, format!("must have at most {ADDRESSES_MAX} items"));
            }
            _ => validate_addresses(&slice.address_type, &endpoint.addresses, path, errors),
        }
    }
}

fn validate_addresses(type_: &str, addresses: &[String], path: Path<'_>, errors: &mut FieldErrors) {
    for (index, address) in addresses.iter().enumerate() {
        let (fits, detail) = match type_ {
            "IPv4" => (
                address.parse::<std::net::Ipv4Addr>().is_ok(),
                "must be an IPv4 address",
            ),
            "IPv6" => (
                address.parse::<std::net::Ipv6Addr>().is_ok(),
                "must be an IPv6 address",
            ),
            _ => (true, ""),
        };
        if !fits {
            errors.invalid(path.index(index), address, detail);
        }
    }
}

fn validate_update(new: &EndpointSlice, old: &EndpointSlice, errors: &mut FieldErrors) {
    if new.address_type != old.address_type {
        let path = Path::root("addressType");
        errors.invalid(
            path,
            Verbatim(format!("{:?}", new.address_type)),
            "field is immutable",
        );
    }
}

fn cells(slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
    let ports = slice
        .ports
        .iter()
        .flatten()
        .map(|port| match (port.port, port.name.as_deref()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) if !name.is_empty() => name.to_owned(),
            (None, _) => "*".to_owned(),
        });
    let addresses = slice
        .endpoints
        .iter()
        .flat_map(|endpoint| endpoint.addresses.iter().cloned());
    vec![
        name_cell(&slice.metadata),
        slice.address_type.clone().into(),
        some_of(&ports.collect::<Vec<_>>(), "<unset>").into(),
        some_of(&addresses.collect::<Vec<_>>(), "<unset>").into(),
        age_cell(&slice.metadata, now),
    ]
}

/// The first few, and how many more there are.
fn some_of(all: &[String], none: &str) -> String {
    match all {
        [] => none.to_owned(),
        _ if all.len() > SHOWN_MAX => {
            format!(
                "{} + {} more...",
                all[..SHOWN_MAX].join(","),
                all.len() - SHOWN_MAX
            )
        }
        _ => all.join(","),
    }
}
