//! Changes of the table, in the words of policies.

use std::net::Ipv4Addr;
use std::sync::Arc;

use flotilla_nftables::Name;

use crate::Protocol;
use crate::policy::PortRange;
use crate::profile::Direction;
use crate::ranges::Range;

/// An element of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Element {
    Address(Ipv4Addr),
    Port(Ipv4Addr, Protocol, u16),
}

/// What a set is made of.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Addresses(Vec<Element>),
    Ports(Vec<Element>),
    Ranges(Arc<[Range]>),
}

#[derive(Debug, Clone)]
pub(crate) struct NewSet {
    pub(crate) name: Name,
    pub(crate) content: Content,
}

impl NewSet {
    /// The set of a group, whose name says which kind it is.
    pub(super) fn of_group(name: &Name, elements: impl Iterator<Item = Element>) -> Self {
        let content = match name.starts_with("named") {
            true => Content::Ports(elements.collect()),
            false => Content::Addresses(elements.collect()),
        };
        Self {
            name: name.clone(),
            content,
        }
    }

    pub(super) fn of_block(name: &Name, ranges: Arc<[Range]>) -> Self {
        Self {
            name: name.clone(),
            content: Content::Ranges(ranges),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct NewChain {
    pub(crate) name: Name,
    pub(crate) body: Body,
}

impl NewChain {
    pub(super) fn new(name: &Name, body: Body) -> Self {
        Self {
            name: name.clone(),
            body,
        }
    }

    pub(super) fn of_ports(name: &Name, ports: Arc<[PortRange]>) -> Self {
        Self::new(name, Body::Ports(ports))
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Lets through what is for these ports, and leads back.
    Ports(Arc<[PortRange]>),
    /// Lets through what fits a line, and nothing else.
    Allowed(Direction, Vec<Line>),
}

/// What is let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The set that has the peer's address.
    pub(crate) peer: Option<Name>,
    /// The set that has the destination's address and port.
    pub(crate) named: Option<Name>,
    /// The chain that knows the ports.
    pub(crate) ports: Option<Name>,
}

/// From an address of a pod to its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) direction: Direction,
    pub(crate) address: Ipv4Addr,
    pub(crate) chain: Name,
}

impl Way {
    pub(super) fn new(direction: Direction, address: Ipv4Addr, chain: &Name) -> Self {
        Self {
            direction,
            address,
            chain: chain.clone(),
        }
    }
}

/// What comes and goes, all at once.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) sets: Vec<NewSet>,
    pub(crate) chains: Vec<NewChain>,
    pub(crate) ways_removed: Vec<Way>,
    pub(crate) ways_added: Vec<Way>,
    /// Addresses of isolated pods, which may always talk with themselves.
    pub(crate) isolated_removed: Vec<Ipv4Addr>,
    pub(crate) isolated_added: Vec<Ipv4Addr>,
    /// Chains before those that they lead to.
    pub(crate) chains_removed: Vec<Name>,
    pub(crate) removed: Vec<(Name, Element)>,
    pub(crate) added: Vec<(Name, Element)>,
    pub(crate) sets_removed: Vec<Name>,
}
