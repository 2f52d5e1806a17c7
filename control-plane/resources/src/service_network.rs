//! Addresses and node ports of services: which ones a service gets, and the records that keep them its own.
//!
//! Each address and port in use is claimed by a small record beside the services. Claims are part of the transaction
//! that stores or removes the service, so no two services ever hold the same one, whichever servers they were
//! created on, and none is left behind. Choosing is a pure function of a snapshot; the transaction judges it.

mod cidr;

use std::collections::BTreeSet;
use std::fmt;

use flotilla_api::{FieldErrors, Kind, Object, Path, Status};
use flotilla_store::{Draft, Key, Operation, Require, ResourceName, Snapshot, Stored};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use rand::Rng;

use crate::Resources;

pub use cidr::{ParseServiceCidrError, ServiceCidr};

/// What node ports services may have, as in Kubernetes.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
const TAKEN_IP: &str = "provided IP is already allocated";

/// Something that only one service may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Address(std::net::Ipv4Addr),
    NodePort(u16),
}

impl fmt::Display for Claim {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::Address(address) => write!(out, "{address}"),
            Claim::NodePort(port) => write!(out, "node-port-{port}"),
        }
    }
}

impl Claim {
    fn key(self) -> Key {
        Key::new(
            ResourceName::new("flotilla.dev", "serviceclaims"),
            "",
            self.to_string(),
        )
    }

    fn take(self, service: &Service) -> Operation {
        let meta = &service.metadata;
        let owner = format!(
            "{}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        );
        let begin = "{\"metadata\":{";
        let json = format!("{begin}\"name\":\"{self}\"}},\"service\":\"{owner}\"}}");
        Operation::Put {
            key: self.key(),
            draft: Draft {
                json: json.into(),
                revision_at: begin.len(),
            },
            require: Require::Absent,
        }
    }

    fn release(self) -> Operation {
        Operation::Delete {
            key: self.key(),
            require: Require::Anything,
        }
    }
}

impl Resources {
    /// Picks the addresses and ports that a service lacks; returns the operations that make them its own and give up
    /// what `old` had and it has not. Objects of other kinds need none.
    ///
    /// An error says that somebody else has what the service asks for, as far as this replica knows.
    pub(crate) fn claim(
        &self,
        kind: &'static Kind,
        old: Option<&Stored>,
        new: &mut dyn Object,
    ) -> Result<Vec<Operation>, Status> {
        let Some(service) = new.as_any_mut().downcast_mut::<Service>() else {
            return Ok(Vec::new());
        };
        let snapshot = self.replica().snapshot();
        let mut allocator = Allocator {
            snapshot: &snapshot,
            cidr: self.options.service_cidr,
            held: old.map(claims_of).unwrap_or_default(),
            errors: FieldErrors::default(),
        };
        allocator.fill(service);
        if !allocator.errors.is_empty() {
            let name = service.metadata.name.as_deref().unwrap_or_default();
            return Err(Status::invalid(kind, name, &allocator.errors.into_vec()));
        }
        let wanted = claims(service);
        let missing = wanted.iter().filter(|claim| snapshot.get(&claim.key()).is_none());
        let surplus = allocator.held.difference(&wanted);
        let released = surplus.map(|claim| claim.release());
        // A service that was stored before there were claims takes its own now.
        Ok(missing.map(|claim| claim.take(service)).chain(released).collect())
    }

    /// The operations that give up what a service had.
    pub(crate) fn unclaim(&self, stored: &Stored) -> Vec<Operation> {
        let name = &stored.key.resource;
        if !name.group.is_empty() || &*name.resource != "services" {
            return Vec::new();
        }
        claims_of(stored).into_iter().map(Claim::release).collect()
    }
}

fn claims_of(stored: &Stored) -> BTreeSet<Claim> {
    let service = serde_json::from_slice::<Service>(&stored.json);
    service.map(|service| claims(&service)).unwrap_or_default()
}

/// What the service has.
fn claims(service: &Service) -> BTreeSet<Claim> {
    let Some(spec) = &service.spec else {
        return BTreeSet::new();
    };
    let listed = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let addresses = listed.filter_map(|ip| ip.parse().ok().map(Claim::Address));
    let ports = spec.ports.iter().flatten().map(|port| port.node_port);
    let ports = ports.chain([spec.health_check_node_port]).flatten();
    let ports = ports
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0);
    addresses.chain(ports.map(Claim::NodePort)).collect()
}

struct Allocator<'a> {
    snapshot: &'a Snapshot,
    cidr: ServiceCidr,
    /// What the service had before.
    held: BTreeSet<Claim>,
    errors: FieldErrors,
}

impl Allocator<'_> {
    fn fill(&mut self, service: &mut Service) {
        let meta = &service.metadata;
        let owner = (
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        let Some(spec) = &mut service.spec else { return };
        if spec.type_.as_deref() == Some("ExternalName") {
            return;
        }
        self.fill_address(owner, spec);
        self.fill_ports(spec);
    }

    fn fill_address(&mut self, owner: (&str, &str), spec: &mut ServiceSpec) {
        let path = Path::root("spec");
        let path = path.child("clusterIPs");
        match spec.cluster_ip.as_deref().unwrap_or_default() {
            "None" => {}
            "" => match self.free_address() {
                Some(address) => {
                    spec.cluster_ip = Some(address.to_string());
                    spec.cluster_ips = Some(vec![address.to_string()]);
                }
                None => {
                    let detail = format!("failed to allocate a serviceIP: {} is full", self.cidr);
                    self.errors.invalid(path, "", detail);
                }
            },
            given => {
                let Ok(address) = given.parse() else { return };
                if let Some(problem) = self.problem_with(owner, address) {
                    let detail = format!("failed to allocate IP {address}: {problem}");
                    self.errors.invalid(path, given, detail);
                }
            }
        }
    }

    /// Why the service may not have this address.
    fn problem_with(&self, owner: (&str, &str), address: std::net::Ipv4Addr) -> Option<String> {
        let claim = Claim::Address(address);
        if self.held.contains(&claim) {
            None
        } else if !self.cidr.serves(address) {
            Some(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                self.cidr
            ))
        } else if self
            .cidr
            .reserved_for(address)
            .is_some_and(|reserved| reserved != owner)
            || self.is_taken(claim)
        {
            Some(TAKEN_IP.to_owned())
        } else {
            None
        }
    }

    /// A random one, so that servers that choose at once seldom collide; those for users to choose come last.
    fn free_address(&self) -> Option<std::net::Ipv4Addr> {
        let is_free = |address: &std::net::Ipv4Addr| {
            self.cidr.reserved_for(*address).is_none() && !self.is_taken(Claim::Address(*address))
        };
        self.cidr.from(rand::rng().random()).find(is_free)
    }

    fn fill_ports(&mut self, spec: &mut ServiceSpec) {
        let type_ = spec.type_.as_deref().unwrap_or_default();
        let balances = type_ == "LoadBalancer";
        let needs_ports =
            type_ == "NodePort" || (balances && spec.allocate_load_balancer_node_ports != Some(false));
        let needs_health_check = balances && spec.external_traffic_policy.as_deref() == Some("Local");
        let mut chosen = BTreeSet::new();
        let path = Path::root("spec");
        let list = path.child("ports");
        for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
            let path = list.index(index);
            self.fill_port(
                &mut port.node_port,
                needs_ports,
                path.child("nodePort"),
                &mut chosen,
            );
        }
        let path = path.child("healthCheckNodePort");
        self.fill_port(
            &mut spec.health_check_node_port,
            needs_health_check,
            path,
            &mut chosen,
        );
    }

    fn fill_port(
        &mut self,
        port: &mut Option<i32>,
        is_needed: bool,
        path: Path<'_>,
        chosen: &mut BTreeSet<u16>,
    ) {
        match port.filter(|port| *port != 0) {
            Some(given) => match u16::try_from(given).ok().filter(|port| NODE_PORTS.contains(port)) {
                Some(given) => {
                    let claim = Claim::NodePort(given);
                    if !self.held.contains(&claim) && self.is_taken(claim) {
                        self.errors
                            .invalid(path, i32::from(given), "provided port is already allocated");
                    }
                    chosen.insert(given);
                }
                None => {
                    let (low, high) = (NODE_PORTS.start(), NODE_PORTS.end());
                    let detail = format!(
                        "provided port is not in the valid range. The range of valid ports is {low}-{high}"
                    );
                    self.errors.invalid(path, given, detail);
                }
            },
            None if is_needed => match self.free_port(chosen) {
                Some(free) => {
                    chosen.insert(free);
                    *port = Some(i32::from(free));
                }
                None => self
                    .errors
                    .invalid(path, 0_i32, "failed to allocate a nodePort: range is full"),
            },
            None => *port = None,
        }
    }

    fn free_port(&self, chosen: &BTreeSet<u16>) -> Option<u16> {
        let (low, high) = (*NODE_PORTS.start(), *NODE_PORTS.end());
        let start = rand::rng().random_range(NODE_PORTS);
        (start..=high)
            .chain(low..start)
            .find(|port| !chosen.contains(port) && !self.is_taken(Claim::NodePort(*port)))
    }

    fn is_taken(&self, claim: Claim) -> bool {
        self.snapshot.get(&claim.key()).is_some()
    }
}
