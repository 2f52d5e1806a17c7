//! IPv4 address ranges, and which of their addresses pods may have. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::NetworkError;

/// A range of addresses, for example `10.42.3.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cidr {
    first: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// The first address, which names the range.
    pub(crate) fn network(self) -> Ipv4Addr {
        self.first
    }

    /// Bits that all addresses share.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The node's own address on its bridge.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + 1)
    }

    /// The last address, which reaches everyone.
    fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | (u32::MAX >> self.prefix))
    }

    /// True when pods may have the address.
    pub(crate) fn serves(self, address: Ipv4Addr) -> bool {
        self.gateway() < address && address < self.broadcast()
    }

    /// The next free address after `last`, going round. So an address rests as long as possible before it is reused.
    pub(crate) fn next_free(self, taken: &BTreeSet<Ipv4Addr>, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let (low, high) = (self.gateway().to_bits() + 1, self.broadcast().to_bits());
        let start = last
            .map(|last| last.to_bits() + 1)
            .filter(|next| (low..high).contains(next))
            .unwrap_or(low);
        (start..high)
            .chain(low..start)
            .map(Ipv4Addr::from_bits)
            .find(|address| !taken.contains(address))
    }
}

impl FromStr for Cidr {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            Some((address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?))
        });
        match parts {
            // Below /8 and above /30 there is either no such cluster or no room for a pod.
            Some((address, prefix @ 8..=30)) if address.to_bits() & (u32::MAX >> prefix) == 0 => Ok(Self {
                first: address,
                prefix,
            }),
            _ => Err(NetworkError::Cidr {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn only_ipv4_ranges_that_begin_at_their_first_address_are_taken() {
        assert_eq!(cidr("10.42.3.0/24").to_string(), "10.42.3.0/24");
        assert_eq!(cidr("10.42.3.0/24").gateway(), address("10.42.3.1"));
        for bad in [
            "",
            "10.42.3.0",
            "10.42.3.1/24",
            "10.42.3.0/31",
            "0.0.0.0/0",
            "fd00::/64",
            "10.42.3.0/x",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_go_round_and_skip_the_ends_the_gateway_and_the_taken() {
        let cidr = cidr("10.0.0.0/29");
        let mut taken = BTreeSet::new();
        let mut last = None;
        let mut given = Vec::new();
        for _ in 0..3 {
            let next = cidr.next_free(&taken, last).unwrap();
            taken.insert(next);
            given.push(next.octets()[3]);
            last = Some(next);
        }
        assert_eq!(given, [2, 3, 4]);
        taken.remove(&address("10.0.0.3"));
        assert_eq!(
            cidr.next_free(&taken, last),
            Some(address("10.0.0.5")),
            "not the one that was just given back"
        );
        assert_eq!(
            cidr.next_free(&taken, Some(address("10.0.0.6"))),
            Some(address("10.0.0.3"))
        );
        taken.extend([3, 5, 6].map(|end| Ipv4Addr::new(10, 0, 0, end)));
        assert_eq!(cidr.next_free(&taken, last), None);
        assert!(cidr.serves(address("10.0.0.2")) && cidr.serves(address("10.0.0.6")));
        for other in ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.1.2"] {
            assert!(!cidr.serves(address(other)), "{other}");
        }
    }
}
