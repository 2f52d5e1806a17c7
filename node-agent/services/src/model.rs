//! Services and their endpoints as far as they matter here, in little memory. Pure.
//!
//! Fifty thousand endpoints take a few megabytes: objects are not kept decoded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::hints::{HintIndex, HintTable, Nearness};
use crate::sources::{self, Range};
use crate::wanted::usable;
use crate::{Backend, Protocol};

/// `namespace/name` of a service.
pub type ServiceName = Arc<str>;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const DEFAULT_STICKY_SECONDS: u32 = 10_800;

/// A service as far as it matters to packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceSpec {
    pub(crate) cluster_addresses: Box<[Ipv4Addr]>,
    /// External IPs.
    pub(crate) external_addresses: Box<[Ipv4Addr]>,
    /// Addresses of its load balancer.
    pub(crate) balanced_addresses: Box<[Ipv4Addr]>,
    /// Who may come in by those; everybody if there is no such list.
    pub(crate) balanced_sources: Option<Box<[Range]>>,
    pub(crate) ports: Box<[ServicePort]>,
    pub(crate) sticky_seconds: Option<u32>,
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    /// Where the node tells load balancers whether it has endpoints.
    pub(crate) health_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

/// One slice of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slice {
    service: ServiceName,
    ports: Box<[SlicePort]>,
    endpoints: Box<[Endpoint]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SlicePort {
    name: Box<str>,
    protocol: Protocol,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Endpoint {
    address: Ipv4Addr,
    is_ready: bool,
    /// Being deleted, but still answering.
    is_draining: bool,
    node: NodeIndex,
    hints: HintIndex,
}

/// A node among those that have endpoints; 0: none is named.
type NodeIndex = u16;
const NO_NODE: NodeIndex = 0;
const THIS_NODE: NodeIndex = 1;

/// A port of an endpoint, and what it is fit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) is_ready: bool,
    pub(crate) is_draining: bool,
    pub(crate) is_local: bool,
    pub(crate) nearness: Nearness,
}

/// A port of a service as others name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortName<'a> {
    /// By its number.
    Number(u16),
    /// By its name.
    Name(&'a str),
}

/// Where a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// There is no such service, or it has no endpoints of its own.
    NoService,
    /// It has no such port.
    NoPort,
    /// At these endpoints, perhaps none.
    At(Vec<SocketAddr>),
}

/// All services and endpoints that a node has heard of.
#[derive(Debug)]
pub struct Model {
    nodes: Vec<Arc<str>>,
    node_indices: HashMap<Arc<str>, NodeIndex>,
    hints: HintTable,
    services: HashMap<ServiceName, ServiceSpec>,
    /// Ports of services without an address, which are nothing to program but can be reached by their endpoints.
    headless: HashMap<ServiceName, Box<[ServicePort]>>,
    /// Those that this node has more to do for than to program: health checks and announcements.
    outward: BTreeSet<ServiceName>,
    slices: HashMap<Box<str>, Slice>,
    slices_of: HashMap<ServiceName, BTreeSet<Box<str>>>,
    /// Services whose rules may have to change.
    dirty: BTreeSet<ServiceName>,
}

impl Model {
    /// Knows nothing; endpoints on the node of this name are local.
    pub fn new(node_name: &str) -> Self {
        let own: Arc<str> = node_name.into();
        Self {
            nodes: vec!["".into(), own.clone()],
            node_indices: HashMap::from([(own, THIS_NODE)]),
            hints: HintTable::new(node_name),
            services: HashMap::new(),
            headless: HashMap::new(),
            outward: BTreeSet::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// This node is in this zone, or in none.
    pub fn zone(&mut self, zone: Option<&str>) {
        if self.hints.set_zone(zone) {
            self.mark_all();
        }
    }

    /// A service is new or has changed.
    pub fn service(&mut self, service: &Service) {
        let meta = &service.metadata;
        let name = full_name(meta.namespace.as_deref(), meta.name.as_deref());
        match headless_ports(service) {
            Some(ports) => drop(self.headless.insert(self.intern(&name), ports)),
            None => drop(self.headless.remove(&*name)),
        }
        match spec_of(service) {
            Some(spec) if self.services.get(&*name) == Some(&spec) => {}
            Some(spec) => {
                let name = self.intern(&name);
                match spec.health_port.is_some() || !spec.balanced_addresses.is_empty() {
                    true => drop(self.outward.insert(name.clone())),
                    false => drop(self.outward.remove(&name)),
                }
                self.services.insert(name.clone(), spec);
                self.dirty.insert(name);
            }
            None => self.forget_service(&name),
        }
    }

    /// A service is gone.
    pub fn service_gone(&mut self, namespace: &str, name: &str) {
        let name = full_name(Some(namespace), Some(name));
        self.headless.remove(&*name);
        self.forget_service(&name);
    }

    /// Where a TCP port of a service is reached without the service's address: its ready endpoints, else those that still
    /// answer while they are being deleted.
    pub fn endpoints(&self, namespace: &str, service: &str, port: PortName<'_>) -> Reached {
        let name = full_name(Some(namespace), Some(service));
        let of_address = self.services.get(&*name).map(|spec| &spec.ports);
        let Some(ports) = of_address.or_else(|| self.headless.get(&*name)) else {
            return Reached::NoService;
        };
        let is_named = |known: &&ServicePort| match port {
            PortName::Number(number) => known.port == number,
            PortName::Name(name) => *known.name == *name,
        };
        let mut tcp = ports.iter().filter(|known| known.protocol == Protocol::Tcp);
        let Some(port) = tcp.find(is_named) else {
            return Reached::NoPort;
        };
        let backends = usable(self.candidates(&name, port).iter());
        let address = |backend: Backend| (backend.address, backend.port).into();
        Reached::At(backends.into_iter().map(address).collect())
    }

    fn forget_service(&mut self, name: &str) {
        if let Some((name, _)) = self.services.remove_entry(name) {
            self.outward.remove(&name);
            self.dirty.insert(name);
        }
    }

    /// A slice is new or has changed.
    pub fn slice(&mut self, slice: &EndpointSlice) {
        let meta = &slice.metadata;
        let name = full_name(meta.namespace.as_deref(), meta.name.as_deref()).into_boxed_str();
        let service = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL));
        let Some(service) = service.filter(|_| slice.address_type == "IPv4") else {
            self.forget_slice(&name);
            return;
        };
        let service = self.intern(&full_name(meta.namespace.as_deref(), Some(service)));
        let compact = self.compact(slice, service.clone());
        if self.slices.get(&name) == Some(&compact) {
            return;
        }
        if self
            .slices
            .get(&name)
            .is_some_and(|known| known.service != service)
        {
            self.forget_slice(&name);
        }
        self.slices_of
            .entry(service.clone())
            .or_default()
            .insert(name.clone());
        self.slices.insert(name, compact);
        self.dirty.insert(service);
    }

    /// A slice is gone.
    pub fn slice_gone(&mut self, namespace: &str, name: &str) {
        self.forget_slice(&full_name(Some(namespace), Some(name)));
    }

    fn forget_slice(&mut self, name: &str) {
        let Some(old) = self.slices.remove(name) else {
            return;
        };
        if let Some(left) = self.slices_of.get_mut(&old.service) {
            left.remove(name);
            if left.is_empty() {
                self.slices_of.remove(&old.service);
            }
        }
        self.dirty.insert(old.service);
    }

    /// Everything is to be looked at again.
    pub(crate) fn mark_all(&mut self) {
        let names = self.services.keys().chain(self.slices_of.keys());
        self.dirty = names.cloned().collect();
    }

    /// The services that may have changed since this was last asked.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.dirty)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&ServiceSpec> {
        self.services.get(name)
    }

    /// Services with health checks or balanced addresses.
    pub(crate) fn outward(&self) -> impl Iterator<Item = (&ServiceName, &ServiceSpec)> {
        self.outward
            .iter()
            .filter_map(|name| self.services.get_key_value(name))
    }

    /// The endpoints behind one port of a service, in a steady order, each once.
    pub(crate) fn candidates(&self, service: &str, port: &ServicePort) -> Vec<Candidate> {
        let mut found: BTreeMap<(Ipv4Addr, u16), Candidate> = BTreeMap::new();
        let slices = self.slices_of.get(service).into_iter().flatten();
        for slice in slices.filter_map(|name| self.slices.get(name)) {
            let fits = |other: &&SlicePort| other.name == port.name && other.protocol == port.protocol;
            let Some(target) = slice.ports.iter().find(fits) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let candidate = Candidate {
                    address: endpoint.address,
                    port: target.port,
                    is_ready: endpoint.is_ready,
                    is_draining: endpoint.is_draining,
                    is_local: endpoint.node == THIS_NODE,
                    nearness: self.hints.nearness(endpoint.hints),
                };
                // An endpoint that moves from one slice to another may be in both for a moment.
                let known = found
                    .entry((candidate.address, candidate.port))
                    .or_insert(candidate);
                known.is_ready |= candidate.is_ready;
            }
        }
        found.into_values().collect()
    }

    /// Addresses of this node's endpoints of a service that are ready, whatever their ports.
    pub(crate) fn local_ready(&self, service: &str) -> usize {
        let local = self.ready(service).filter(|endpoint| endpoint.node == THIS_NODE);
        local
            .map(|endpoint| endpoint.address)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Names of the nodes that have endpoints of a service that are ready.
    pub(crate) fn nodes_of(&self, service: &str) -> BTreeSet<Arc<str>> {
        let nodes = self.ready(service).map(|endpoint| usize::from(endpoint.node));
        nodes.filter_map(|node| self.nodes.get(node).cloned()).collect()
    }

    fn ready(&self, service: &str) -> impl Iterator<Item = &Endpoint> {
        let slices = self.slices_of.get(service).into_iter().flatten();
        let endpoints = slices
            .filter_map(|name| self.slices.get(name))
            .flat_map(|slice| &slice.endpoints);
        endpoints.filter(|endpoint| endpoint.is_ready)
    }

    fn compact(&mut self, slice: &EndpointSlice, service: ServiceName) -> Slice {
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let is_ready = conditions.ready.unwrap_or(true);
            let is_serving = conditions.serving.unwrap_or(is_ready);
            Some(Endpoint {
                address: endpoint.addresses.first()?.parse().ok()?,
                is_ready,
                is_draining: is_serving && conditions.terminating.unwrap_or(false),
                node: endpoint
                    .node_name
                    .as_deref()
                    .map_or(NO_NODE, |name| self.node_index(name)),
                hints: self.hints.keep(endpoint.hints.as_ref()),
            })
        });
        Slice {
            endpoints: endpoints.collect(),
            ports: slice.ports.iter().flatten().filter_map(slice_port).collect(),
            service,
        }
    }

    fn node_index(&mut self, name: &str) -> NodeIndex {
        if let Some(known) = self.node_indices.get(name) {
            return *known;
        }
        // Beyond the last index nodes go without a name: none of them is this one.
        let Ok(index) = NodeIndex::try_from(self.nodes.len()) else {
            return NO_NODE;
        };
        let name: Arc<str> = name.into();
        self.nodes.push(name.clone());
        self.node_indices.insert(name, index);
        index
    }

    fn intern(&self, name: &str) -> ServiceName {
        let known = self.services.get_key_value(name).map(|(name, _)| name.clone());
        let known = known.or_else(|| self.slices_of.get_key_value(name).map(|(name, _)| name.clone()));
        known.unwrap_or_else(|| name.into())
    }
}

/// Nothing for services that have an address, or no endpoints of their own.
fn headless_ports(service: &Service) -> Option<Box<[ServicePort]>> {
    let spec = service.spec.as_ref()?;
    let is_headless =
        spec.type_.as_deref() != Some("ExternalName") && spec.cluster_ip.as_deref() == Some("None");
    is_headless.then(|| spec.ports.iter().flatten().filter_map(port_of).collect())
}

fn full_name(namespace: Option<&str>, name: Option<&str>) -> String {
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

/// Nothing for services that have no address here.
fn spec_of(service: &Service) -> Option<ServiceSpec> {
    let spec = service.spec.as_ref()?;
    let type_ = spec.type_.as_deref().unwrap_or("ClusterIP");
    if type_ == "ExternalName" {
        return None;
    }
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let listed = if listed.is_empty() {
        spec.cluster_ip.as_slice()
    } else {
        listed
    };
    let cluster_addresses: Box<[Ipv4Addr]> = listed.iter().filter_map(|ip| ip.parse().ok()).collect();
    if cluster_addresses.is_empty() {
        return None;
    }
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer
        .iter()
        .flat_map(|balancer| balancer.ingress.iter().flatten());
    // A balancer that hands packets on by itself, and so may change them, asks not to be cut short.
    let ingress = ingress.filter(|one| one.ip_mode.as_deref() != Some("Proxy"));
    let ingress = ingress.filter_map(|one| one.ip.as_deref()?.parse().ok());
    let balances = type_ == "LoadBalancer";
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    let config = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| u32::try_from(config.timeout_seconds?).ok());
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    Some(ServiceSpec {
        cluster_addresses,
        external_addresses: spec
            .external_ips
            .iter()
            .flatten()
            .filter_map(|ip| ip.parse().ok())
            .collect(),
        balanced_addresses: ingress.filter(|_| balances).collect(),
        balanced_sources: sources::ranges_of(spec),
        ports: spec.ports.iter().flatten().filter_map(port_of).collect(),
        sticky_seconds: sticky.then(|| seconds.unwrap_or(DEFAULT_STICKY_SECONDS)),
        internal_local: is_local(&spec.internal_traffic_policy),
        external_local: is_local(&spec.external_traffic_policy),
        health_port: spec.health_check_node_port.and_then(port_number),
    })
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

fn port_of(port: &k8s_openapi::api::core::v1::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: Protocol::of(port.protocol.as_deref())?,
        port: port_number(port.port)?,
        node_port: port.node_port.and_then(port_number),
    })
}

fn slice_port(port: &k8s_openapi::api::discovery::v1::EndpointPort) -> Option<SlicePort> {
    Some(SlicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: Protocol::of(port.protocol.as_deref())?,
        port: port_number(port.port?)?,
    })
}

#[cfg(test)]
mod tests;
