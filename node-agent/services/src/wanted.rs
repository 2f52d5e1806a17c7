//! What a service needs of the kernel. Pure.
//!
//! A port has up to two groups of backends: all, and those of this node. Every address and port at which the service
//! is reached leads to one of them, or is refused.

use std::net::Ipv4Addr;

use crate::hints::near;
use crate::model::{Candidate, Model, ServicePort, ServiceSpec};
use crate::sources::Range;
use crate::{Backend, Frontend};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Goal {
    /// To one of the group's backends.
    Group(u8),
    /// Refused at once: the service has no endpoints.
    Reject,
    /// Dropped: there are endpoints, but none that this node may use.
    Drop,
}

/// Backends of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Names the group among those of its service.
    pub(crate) hash: u32,
    pub(crate) backends: Vec<Backend>,
    pub(crate) sticky_seconds: Option<u32>,
}

/// What becomes of connections to one address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) frontend: Frontend,
    pub(crate) outside: Goal,
    /// For pods and this node, where it differs.
    pub(crate) inside: Option<Goal>,
    /// Connections from outside leave with this node's address, because any node's pod may answer.
    pub(crate) masquerade: bool,
    /// Only the service's sources may come in here.
    pub(crate) is_guarded: bool,
}

/// Everything that one service needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) groups: Vec<Group>,
    pub(crate) entries: Vec<Entry>,
    /// For entries that are guarded.
    pub(crate) sources: Box<[Range]>,
}

/// What `name` needs on a node with these addresses. Nothing when there is no such service.
pub(crate) fn wanted(model: &Model, name: &str, node_addresses: &[Ipv4Addr]) -> Wanted {
    let mut wanted = Wanted::default();
    if let Some(spec) = model.get(name) {
        wanted.sources = spec.balanced_sources.clone().unwrap_or_default();
        for port in &spec.ports {
            let candidates = model.candidates(name, port);
            Port { name, spec, port }.add(&candidates, node_addresses, &mut wanted);
        }
    }
    wanted
}

struct Port<'a> {
    name: &'a str,
    spec: &'a ServiceSpec,
    port: &'a ServicePort,
}

impl Port<'_> {
    fn add(&self, candidates: &[Candidate], node_addresses: &[Ipv4Addr], wanted: &mut Wanted) {
        let spec = self.spec;
        let all = usable(near(candidates));
        let local = usable(candidates.iter().filter(|candidate| candidate.is_local));
        let is_external = self.port.node_port.is_some()
            || !spec.external_addresses.is_empty()
            || !spec.balanced_addresses.is_empty();
        let needs_local = spec.internal_local || (spec.external_local && is_external);
        let needs_all = !spec.internal_local || is_external;
        let everywhere = needs_all.then(|| self.goal("all", &all, false, wanted));
        let here = needs_local.then(|| self.goal("local", &local, !all.is_empty(), wanted));
        let goal = |is_local: bool| {
            if is_local {
                here.or(everywhere)
            } else {
                everywhere.or(here)
            }
        };
        let internal = goal(spec.internal_local).unwrap_or(Goal::Reject);
        for address in &spec.cluster_addresses {
            wanted.entries.push(Entry {
                frontend: self.frontend(*address, self.port.port),
                outside: internal,
                inside: None,
                masquerade: false,
                is_guarded: false,
            });
        }
        let external = goal(spec.external_local).unwrap_or(Goal::Reject);
        let mut add = |address: Ipv4Addr, port: u16, is_guarded: bool| {
            wanted.entries.push(Entry {
                frontend: self.frontend(address, port),
                outside: external,
                inside: everywhere.filter(|_| spec.external_local),
                masquerade: !spec.external_local,
                is_guarded,
            });
        };
        spec.external_addresses
            .iter()
            .for_each(|address| add(*address, self.port.port, false));
        spec.balanced_addresses
            .iter()
            .for_each(|address| add(*address, self.port.port, spec.balanced_sources.is_some()));
        if let Some(node_port) = self.port.node_port {
            node_addresses
                .iter()
                .for_each(|address| add(*address, node_port, false));
        }
    }

    /// A new group, or what becomes of connections when it would be empty.
    fn goal(&self, scope: &str, backends: &[Backend], others: bool, wanted: &mut Wanted) -> Goal {
        if backends.is_empty() {
            return if others { Goal::Drop } else { Goal::Reject };
        }
        let Ok(index) = u8::try_from(wanted.groups.len()) else {
            return Goal::Reject;
        };
        wanted.groups.push(Group {
            hash: self.hash(scope),
            backends: backends.to_vec(),
            sticky_seconds: self.spec.sticky_seconds,
        });
        Goal::Group(index)
    }

    fn frontend(&self, address: Ipv4Addr, port: u16) -> Frontend {
        Frontend {
            address,
            protocol: self.port.protocol,
            port,
        }
    }

    /// FNV-1a.
    fn hash(&self, scope: &str) -> u32 {
        let port = self.port.port.to_be_bytes();
        let parts = [
            self.name.as_bytes(),
            b" ",
            &port,
            &[self.port.protocol.number()],
            scope.as_bytes(),
        ];
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        parts.iter().flat_map(|part| part.iter()).fold(0x811c_9dc5, step)
    }
}

/// Those that are ready; if there are none, those that still answer while they are being deleted.
pub(crate) fn usable<'a>(candidates: impl Iterator<Item = &'a Candidate> + Clone) -> Vec<Backend> {
    let backend = |candidate: &Candidate| Backend {
        address: candidate.address,
        port: candidate.port,
        is_local: candidate.is_local,
    };
    let ready: Vec<_> = candidates
        .clone()
        .filter(|one| one.is_ready)
        .map(backend)
        .collect();
    if !ready.is_empty() {
        return ready;
    }
    candidates.filter(|one| one.is_draining).map(backend).collect()
}

#[cfg(test)]
mod tests;
