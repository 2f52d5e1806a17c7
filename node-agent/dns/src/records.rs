//! What the names of the cluster stand for. Pure: somebody tells of services, endpoint slices and namespaces, and
//! lookups find their way by indexes.

mod endpoints;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::question::{Question, RecordKind, parse};
use crate::reverse;
use endpoints::{Port, Slice};

/// The version of Kubernetes' naming scheme that is followed.
const SCHEME_VERSION: &str = "1.1.0";
/// The name that Kubernetes users know the cluster's DNS by.
const DNS_SERVICE: &str = "kube-dns.kube-system";

/// What a name has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the fields are those of the record")]
pub enum Value {
    /// A or AAAA.
    Address(IpAddr),
    /// SRV; the target's own addresses come along as extras.
    Service { port: u16, target: String },
    /// PTR.
    Name(String),
    /// TXT.
    Text(String),
    /// NS, the zone's only one.
    NameServer,
    /// SOA.
    Zone,
}

/// Answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Not a name of the cluster: ask upstream.
    Foreign,
    /// What the control plane has was never learned.
    Unknown,
    /// There is no such name.
    Missing,
    /// There is, with these values of the kind that was asked for, perhaps none.
    Found {
        /// What was asked for.
        values: Vec<Value>,
        /// Addresses of names among the values.
        extras: Vec<(String, IpAddr)>,
    },
    /// Another name for this one, without the last dot.
    Alias(String),
}

impl Lookup {
    fn values(values: Vec<Value>) -> Self {
        Self::Found {
            values,
            extras: Vec::new(),
        }
    }
}

/// Everything that has a name.
#[derive(Debug, Default)]
pub struct Records {
    domain: String,
    dns: Option<IpAddr>,
    /// Addresses that only the cluster knows names of.
    own_ranges: Vec<String>,
    is_complete: bool,
    changes: u32,
    namespaces: HashSet<String>,
    /// By `name.namespace`.
    services: HashMap<Arc<str>, Named>,
    /// By `name.namespace`.
    slices: HashMap<Arc<str>, Slice>,
    reverse: BTreeSet<(IpAddr, Holder)>,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Service(Arc<str>),
    Slice(Arc<str>),
}

/// One service and the slices of its endpoints, of which either may be learned first.
#[derive(Debug, Default)]
struct Named {
    target: Target,
    ports: Vec<Port>,
    slices: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Target {
    /// Only slices are known so far.
    #[default]
    Unknown,
    Addresses(Vec<IpAddr>),
    Headless,
    Alias(String),
}

/// `name.namespace`, as in the name that is looked up.
pub(crate) fn key(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}")
}

impl Records {
    /// Nothing yet, below a domain such as `cluster.local`.
    pub fn new(domain: &str) -> Self {
        Self {
            domain: domain.trim_matches('.').to_ascii_lowercase(),
            ..Self::default()
        }
    }

    /// The cluster's domain and DNS address, and the ranges of addresses that only it knows names of.
    pub fn set_zone(&mut self, domain: &str, dns: Option<IpAddr>, own_ranges: Vec<String>) {
        self.domain = domain.trim_matches('.').to_ascii_lowercase();
        self.dns = dns;
        self.own_ranges = own_ranges;
    }

    /// From now on what is not known does not exist.
    pub fn set_complete(&mut self) {
        self.is_complete = true;
    }

    /// The domain, without dots at its ends.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Counts the changes: the zone's serial number.
    pub fn serial(&self) -> u32 {
        self.changes
    }

    /// Learns that a namespace is there, or is not any more.
    pub fn set_namespace(&mut self, name: &str, exists: bool) {
        self.changes = self.changes.wrapping_add(1);
        if exists {
            self.namespaces.insert(name.to_owned());
        } else {
            self.namespaces.remove(name);
        }
    }

    /// Learns a service, or that it is gone.
    pub fn set_service(&mut self, namespace: &str, name: &str, service: Option<&Service>) {
        self.changes = self.changes.wrapping_add(1);
        let key: Arc<str> = key(namespace, name).into();
        let spec = service.map(|service| service.spec.clone().unwrap_or_default());
        let target = spec.as_ref().map(target_of).unwrap_or_default();
        let named = self.services.entry(key.clone()).or_default();
        let before = std::mem::replace(&mut named.target, target);
        named.ports = spec.map(|spec| ports_of(&spec)).unwrap_or_default();
        if let Target::Addresses(old) = before {
            for address in old {
                self.reverse.remove(&(address, Holder::Service(key.clone())));
            }
        }
        if let Target::Addresses(new) = &named.target {
            for &address in new {
                self.reverse.insert((address, Holder::Service(key.clone())));
            }
        }
        self.forget_if_empty(&key);
    }

    /// Learns an endpoint slice, or that it is gone.
    pub fn set_slice(&mut self, namespace: &str, name: &str, slice: Option<&EndpointSlice>) {
        self.changes = self.changes.wrapping_add(1);
        let key: Arc<str> = key(namespace, name).into();
        if let Some(old) = self.slices.remove(&key) {
            for address in old.addresses() {
                self.reverse.remove(&(address, Holder::Slice(key.clone())));
            }
            if let Some(named) = self.services.get_mut(old.service()) {
                named.slices.remove(&key);
            }
            self.forget_if_empty(&Arc::from(old.service()));
        }
        let Some(new) = slice.and_then(|slice| Slice::of(namespace, slice)) else {
            return;
        };
        for address in new.addresses() {
            self.reverse.insert((address, Holder::Slice(key.clone())));
        }
        let named = self.services.entry(new.service().into()).or_default();
        named.slices.insert(key.clone());
        self.slices.insert(key, new);
    }

    fn forget_if_empty(&mut self, key: &Arc<str>) {
        let is_empty = |named: &Named| named.target == Target::Unknown && named.slices.is_empty();
        if self.services.get(key).is_some_and(is_empty) {
            self.services.remove(key);
        }
    }

    /// What a name has of one kind of record; `name` is in lower case and without the last dot.
    pub fn lookup(&self, name: &str, kind: RecordKind) -> Lookup {
        if let Some(address) = reverse::address(name) {
            return self.lookup_address(address, kind);
        }
        let below = match name.strip_suffix(self.domain.as_str()) {
            Some("") => "",
            Some(rest) if rest.ends_with('.') => &rest[..rest.len() - 1],
            _ => return Lookup::Foreign,
        };
        if !self.is_complete {
            return Lookup::Unknown;
        }
        self.answer(parse(below), kind)
    }

    fn answer(&self, question: Question<'_>, kind: RecordKind) -> Lookup {
        let in_known = |namespace: &str, lookup: Lookup| {
            if self.namespaces.contains(namespace) {
                lookup
            } else {
                Lookup::Missing
            }
        };
        match question {
            Question::Zone => Lookup::values(match kind {
                RecordKind::Ns => vec![Value::NameServer],
                RecordKind::Soa => vec![Value::Zone],
                _ => Vec::new(),
            }),
            Question::NameServer => Lookup::values(of_kind(self.dns.into_iter(), kind)),
            Question::Version => Lookup::values(match kind {
                RecordKind::Txt => vec![Value::Text(SCHEME_VERSION.into())],
                _ => Vec::new(),
            }),
            Question::Branch => Lookup::values(Vec::new()),
            Question::Nothing => Lookup::Missing,
            Question::Namespace(namespace) => in_known(namespace, Lookup::values(Vec::new())),
            Question::Pod { namespace, address } => {
                in_known(namespace, Lookup::values(of_kind([address].into_iter(), kind)))
            }
            Question::Service { namespace, service } => self.lookup_service(&key(namespace, service), kind),
            Question::Protocol { namespace, service } => match self.service(&key(namespace, service)) {
                Some(_) => Lookup::values(Vec::new()),
                None => Lookup::Missing,
            },
            Question::Endpoint {
                namespace,
                service,
                endpoint,
            } => self.lookup_endpoint(&key(namespace, service), endpoint, kind),
            Question::Port {
                namespace,
                service,
                port,
                protocol,
            } => self.lookup_port(&key(namespace, service), Some((port, protocol)), kind),
        }
    }

    /// A service that exists; slices alone do not make one.
    fn service(&self, key: &str) -> Option<&Named> {
        self.services
            .get(key)
            .filter(|named| named.target != Target::Unknown)
    }

    fn slices<'a>(&'a self, named: &'a Named) -> impl Iterator<Item = &'a Slice> {
        named.slices.iter().filter_map(|slice| self.slices.get(slice))
    }

    fn lookup_service(&self, key: &str, kind: RecordKind) -> Lookup {
        let Some(named) = self.service(key) else {
            let own = self.dns.filter(|_| key == DNS_SERVICE);
            return own.map_or(Lookup::Missing, |dns| {
                Lookup::values(of_kind([dns].into_iter(), kind))
            });
        };
        match &named.target {
            Target::Alias(name) => Lookup::Alias(name.clone()),
            _ if kind == RecordKind::Srv => self.lookup_port(key, None, kind),
            Target::Addresses(addresses) => Lookup::values(of_kind(addresses.iter().copied(), kind)),
            _ => {
                let all: BTreeSet<IpAddr> = self.slices(named).flat_map(Slice::addresses).collect();
                match all.len() {
                    // As CoreDNS: a headless service without endpoints has no name.
                    0 => Lookup::Missing,
                    _ => Lookup::values(of_kind(all.into_iter(), kind)),
                }
            }
        }
    }

    fn lookup_endpoint(&self, key: &str, endpoint: &str, kind: RecordKind) -> Lookup {
        let Some(named) = self.service(key) else {
            return Lookup::Missing;
        };
        let found: BTreeSet<IpAddr> = self
            .slices(named)
            .flat_map(|slice| slice.named(endpoint))
            .collect();
        if found.is_empty() {
            return Lookup::Missing;
        }
        Lookup::values(of_kind(found.into_iter(), kind))
    }

    /// The ports of a service: all of them, or the one of this name and protocol.
    fn lookup_port(&self, key: &str, wanted: Option<(&str, &str)>, kind: RecordKind) -> Lookup {
        let Some(named) = self.service(key) else {
            return Lookup::Missing;
        };
        let is_wanted = |port: &&Port| wanted.is_none_or(|(name, protocol)| port.is(name, protocol));
        let own = format!("{key}.svc.{}", self.domain);
        let mut found = BTreeSet::new();
        let mut extras = BTreeSet::new();
        match &named.target {
            Target::Alias(name) => return Lookup::Alias(name.clone()),
            Target::Addresses(addresses) => {
                for port in named.ports.iter().filter(is_wanted) {
                    found.insert((port.number, own.clone()));
                    extras.extend(addresses.iter().map(|&address| (own.clone(), address)));
                }
            }
            Target::Headless | Target::Unknown => {
                for slice in self.slices(named) {
                    for port in slice.ports().iter().filter(is_wanted) {
                        for (label, address) in slice.endpoints() {
                            let target = format!("{label}.{own}");
                            extras.insert((target.clone(), address));
                            found.insert((port.number, target));
                        }
                    }
                }
            }
        }
        match (found.is_empty(), kind) {
            (true, _) => Lookup::Missing,
            (false, RecordKind::Srv) => Lookup::Found {
                values: found
                    .into_iter()
                    .map(|(port, target)| Value::Service { port, target })
                    .collect(),
                extras: extras.into_iter().collect(),
            },
            (false, _) => Lookup::values(Vec::new()),
        }
    }

    fn lookup_address(&self, address: IpAddr, kind: RecordKind) -> Lookup {
        let first = (address, Holder::Service("".into()));
        let holders = self.reverse.range(first..);
        let holders = holders.take_while(|(of, _)| *of == address);
        let below = |key: &str| format!("{key}.svc.{}", self.domain);
        let mut names: Vec<Value> = holders
            .filter_map(|(_, holder)| match holder {
                Holder::Service(key) => Some(below(key)),
                Holder::Slice(key) => {
                    let slice = self.slices.get(key)?;
                    let label = slice.label_of(address)?;
                    Some(format!("{label}.{}", below(slice.service())))
                }
            })
            .map(Value::Name)
            .collect();
        if names.is_empty() && self.dns == Some(address) {
            names.push(Value::Name(below(DNS_SERVICE)));
        }
        if names.is_empty() {
            let is_own = self
                .own_ranges
                .iter()
                .any(|range| reverse::is_within(address, range));
            return if is_own { Lookup::Missing } else { Lookup::Foreign };
        }
        if kind != RecordKind::Ptr {
            names.clear();
        }
        Lookup::values(names)
    }
}

fn target_of(spec: &ServiceSpec) -> Target {
    if spec.type_.as_deref() == Some("ExternalName") {
        let name = spec.external_name.clone().unwrap_or_default();
        return Target::Alias(name.trim_end_matches('.').to_ascii_lowercase());
    }
    let listed = spec.cluster_ips.iter().flatten();
    let addresses: BTreeSet<&String> = listed.chain(spec.cluster_ip.iter()).collect();
    let addresses: Vec<IpAddr> = addresses.iter().filter_map(|text| text.parse().ok()).collect();
    match spec.cluster_ip.as_deref() {
        Some("None") => Target::Headless,
        _ => Target::Addresses(addresses),
    }
}

fn ports_of(spec: &ServiceSpec) -> Vec<Port> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| Port::new(port.name.as_deref(), port.protocol.as_deref(), port.port))
        .collect()
}

/// The addresses that a record of this kind may hold.
fn of_kind(addresses: impl Iterator<Item = IpAddr>, kind: RecordKind) -> Vec<Value> {
    let fits = |address: &IpAddr| match kind {
        RecordKind::A => address.is_ipv4(),
        RecordKind::Aaaa => address.is_ipv6(),
        _ => false,
    };
    addresses.filter(fits).map(Value::Address).collect()
}

#[cfg(test)]
mod tests;
