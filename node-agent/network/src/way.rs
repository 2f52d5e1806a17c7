//! How packets get to other nodes' pods, and what has to change for that. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::cidr::Cidr;
use crate::link::hardware_address;
use crate::route::Routes;

/// Bytes that VXLAN adds to a packet: Ethernet, IPv4, UDP and its own header.
const VXLAN_BYTES: u32 = 50;
/// What links have that say nothing else.
const USUAL_MTU: u32 = 1500;

/// When packets to other nodes' pods are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlay {
    /// Where a router is between the nodes.
    #[default]
    Auto,
    /// Never: what is between the nodes knows the way to their pods.
    Direct,
    /// Always: what is between the nodes lets only their own addresses pass.
    Vxlan,
}

/// The way to another node's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As they are, to the node's address.
    Direct(Ipv4Addr),
    /// Wrapped, to the node's address.
    Tunnel(Ipv4Addr),
}

impl Way {
    /// The next hop. A tunnel's end has the first address of its node's range, which no pod gets.
    pub(crate) fn gateway(self, cidr: Cidr) -> Ipv4Addr {
        match self {
            Self::Direct(node) => node,
            Self::Tunnel(_) => cidr.network(),
        }
    }
}

/// Ends of the tunnel by their hardware address: the address inside and the node's own.
pub(crate) type Peers = BTreeMap<Vec<u8>, (Ipv4Addr, Ipv4Addr)>;

/// What has to change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) remove: Vec<(Ipv4Addr, u8)>,
    pub(crate) replace: Vec<(Cidr, Way)>,
    /// All ends of the tunnel; without one there is no tunnel.
    pub(crate) peers: Peers,
}

/// Compares the routes that are there with the ways to other nodes. A node whose way is unknown keeps its route.
pub(crate) fn plan(present: &Routes, ways: &BTreeMap<Cidr, Option<Way>>) -> Changes {
    let mut changes = Changes::default();
    let is_wanted =
        |route: &(Ipv4Addr, u8)| ways.keys().any(|cidr| (cidr.network(), cidr.prefix()) == *route);
    changes
        .remove
        .extend(present.keys().filter(|route| !is_wanted(route)));
    for (&cidr, way) in ways {
        let Some(way) = *way else { continue };
        if let Way::Tunnel(node) = way {
            let inside = way.gateway(cidr);
            changes.peers.insert(hardware_address(inside), (inside, node));
        }
        if present.get(&(cidr.network(), cidr.prefix())) != Some(&Some(way.gateway(cidr))) {
            changes.replace.push((cidr, way));
        }
    }
    changes
}

/// Bytes that a pod's packet may have: what the node's link takes, less what a tunnel adds.
pub(crate) fn pod_mtu(link: Option<u32>, is_tunnelled: bool) -> u32 {
    let link = link.unwrap_or(USUAL_MTU);
    if is_tunnelled {
        link.saturating_sub(VXLAN_BYTES)
    } else {
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn routes_change_only_where_they_have_to() {
        let node = |end| Ipv4Addr::new(192, 168, 7, end);
        let pods = |third| Ipv4Addr::new(10, 42, third, 0);
        let present = Routes::from([
            ((pods(1), 24), Some(node(1))),
            ((pods(2), 24), Some(node(2))),
            ((pods(3), 24), Some(node(3))),
            ((pods(4), 24), Some(node(4))),
        ]);
        let ways = BTreeMap::from([
            (cidr("10.42.1.0/24"), Some(Way::Direct(node(1)))),
            (cidr("10.42.2.0/24"), Some(Way::Tunnel(node(2)))),
            (cidr("10.42.4.0/24"), None),
            (cidr("10.42.5.0/24"), Some(Way::Direct(node(5)))),
        ]);
        let changes = plan(&present, &ways);
        assert_eq!(changes.remove, [(pods(3), 24)]);
        assert_eq!(
            changes.replace,
            [
                (cidr("10.42.2.0/24"), Way::Tunnel(node(2))),
                (cidr("10.42.5.0/24"), Way::Direct(node(5))),
            ]
        );
        let peer = (vec![0x0a, 0x58, 10, 42, 2, 0], (pods(2), node(2)));
        assert_eq!(changes.peers, Peers::from([peer]));
    }

    #[test]
    fn packets_leave_room_for_the_tunnel() {
        assert_eq!(pod_mtu(Some(9000), false), 9000);
        assert_eq!(pod_mtu(Some(1500), true), 1450);
        assert_eq!(pod_mtu(None, true), 1450);
    }
}
