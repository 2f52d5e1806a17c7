//! The ready endpoints of one slice, sorted for lookups.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::question::{dashed, undashed};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A port that has a name in `_name._protocol`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Port {
    name: Box<str>,
    protocol: Box<str>,
    pub(super) number: u16,
}

impl Port {
    pub(super) fn new(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Self> {
        Some(Self {
            name: name.unwrap_or_default().into(),
            protocol: protocol.unwrap_or("TCP").to_ascii_lowercase().into(),
            number: u16::try_from(number).ok()?,
        })
    }

    pub(super) fn is(&self, name: &str, protocol: &str) -> bool {
        &*self.name == name && &*self.protocol == protocol
    }
}

#[derive(Debug)]
pub(super) struct Slice {
    /// `name.namespace` of the service.
    service: Box<str>,
    /// By hostname, those without one first.
    endpoints: Vec<(Option<Box<str>>, IpAddr)>,
    ports: Vec<Port>,
}

impl Slice {
    /// None when it belongs to no service, or holds names instead of addresses.
    pub(super) fn of(namespace: &str, slice: &EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?;
        let mut endpoints = Vec::new();
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            if conditions.and_then(|conditions| conditions.ready) == Some(false) {
                continue;
            }
            let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
            for address in &endpoint.addresses {
                let hostname = hostname.map(|name| name.to_ascii_lowercase().into());
                endpoints.push((hostname, address.parse().ok()?));
            }
        }
        endpoints.sort();
        endpoints.shrink_to_fit();
        let ports = slice.ports.iter().flatten();
        let ports = ports
            .filter_map(|port| Port::new(port.name.as_deref(), port.protocol.as_deref(), port.port?))
            .collect();
        Some(Self {
            service: super::key(namespace, service).into(),
            endpoints,
            ports,
        })
    }

    pub(super) fn service(&self) -> &str {
        &self.service
    }

    pub(super) fn ports(&self) -> &[Port] {
        &self.ports
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.endpoints.iter().map(|(_, address)| *address)
    }

    /// Each endpoint's label below its service, and its address.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (String, IpAddr)> {
        self.endpoints
            .iter()
            .map(|(hostname, address)| (label(hostname.as_deref(), *address), *address))
    }

    /// The addresses behind a label: a hostname, or dashes for who has none.
    pub(super) fn named(&self, wanted: &str) -> Vec<IpAddr> {
        let from = self
            .endpoints
            .partition_point(|(hostname, _)| hostname.as_deref() < Some(wanted));
        let same = self.endpoints[from..]
            .iter()
            .take_while(|(hostname, _)| hostname.as_deref() == Some(wanted));
        let mut found: Vec<IpAddr> = same.map(|(_, address)| *address).collect();
        if let Some(address) = undashed(wanted)
            && self.endpoints.binary_search(&(None, address)).is_ok()
        {
            found.push(address);
        }
        found
    }

    /// The label of an address, if it is one of an endpoint.
    pub(super) fn label_of(&self, wanted: IpAddr) -> Option<String> {
        let mut found = self.endpoints.iter().filter(|(_, address)| *address == wanted);
        found
            .next()
            .map(|(hostname, address)| label(hostname.as_deref(), *address))
    }
}

fn label(hostname: Option<&str>, address: IpAddr) -> String {
    hostname.map_or_else(|| dashed(address), str::to_owned)
}
