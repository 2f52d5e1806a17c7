//! The range of services' addresses. Pure; IPv4 so far.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// At most so many addresses are left for users to choose, at the range's begin.
const CHOSEN_MAX: u32 = 256;
const CHOSEN_MIN: u32 = 16;

/// A range of service addresses, for example `10.43.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    first: u32,
    prefix: u8,
}

/// Not a range of addresses that services could have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an IPv4 range for services: give one such as 10.43.0.0/16, from /8 to /28")]
pub struct ParseServiceCidrError {
    text: String,
}

impl Default for ServiceCidr {
    /// `10.43.0.0/16`.
    fn default() -> Self {
        Self {
            first: Ipv4Addr::new(10, 43, 0, 0).to_bits(),
            prefix: 16,
        }
    }
}

impl FromStr for ServiceCidr {
    type Err = ParseServiceCidrError;

    fn from_str(text: &str) -> Result<Self, ParseServiceCidrError> {
        let wrong = || ParseServiceCidrError {
            text: text.to_owned(),
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let first = address.parse::<Ipv4Addr>().map_err(|_| wrong())?.to_bits();
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| (8..=28).contains(prefix))
            .ok_or_else(wrong)?;
        let cidr = Self { first, prefix };
        (first & (cidr.size() - 1) == 0).then_some(cidr).ok_or_else(wrong)
    }
}

impl fmt::Display for ServiceCidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", Ipv4Addr::from_bits(self.first), self.prefix)
    }
}

impl ServiceCidr {
    /// The address of the service `kubernetes`.
    pub fn kubernetes(self) -> Ipv4Addr {
        self.at(1)
    }

    /// The address at which names are resolved.
    pub fn dns(self) -> Ipv4Addr {
        self.at(10)
    }

    /// Whether a service may have this address at all.
    pub(super) fn serves(self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().wrapping_sub(self.first);
        (1..self.size() - 1).contains(&offset)
    }

    /// Namespace and name of the only service that may have the address.
    pub(super) fn reserved_for(self, address: Ipv4Addr) -> Option<(&'static str, &'static str)> {
        if address == self.kubernetes() {
            Some(("default", "kubernetes"))
        } else if address == self.dns() {
            Some(("kube-system", "kube-dns"))
        } else {
            None
        }
    }

    /// All addresses, from some point on and round; those that users are more likely to choose come last.
    pub(super) fn from(self, random: u32) -> impl Iterator<Item = Ipv4Addr> {
        let end = self.size() - 1;
        let dynamic = (self.size() / 16).clamp(CHOSEN_MIN.min(self.size() / 2), CHOSEN_MAX);
        let start = dynamic + random % (end - dynamic);
        (start..end)
            .chain(dynamic..start)
            .chain(1..dynamic)
            .map(move |offset| self.at(offset))
    }

    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first + offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cidr(text: &str) -> ServiceCidr {
        text.parse().unwrap()
    }

    #[test]
    fn only_ranges_that_begin_at_their_first_address_are_taken() {
        assert_eq!(cidr("10.43.0.0/16"), ServiceCidr::default());
        assert_eq!(cidr("10.43.0.0/16").to_string(), "10.43.0.0/16");
        for bad in [
            "",
            "10.43.0.0",
            "10.43.0.1/16",
            "10.43.0.0/30",
            "10.0.0.0/7",
            "fd00::/108",
            "10.43.0.0/x",
        ] {
            assert!(bad.parse::<ServiceCidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_address_but_the_ends_comes_once_and_those_for_users_last() {
        for range in ["10.43.0.0/28", "10.43.0.0/24", "10.43.0.0/16"] {
            let cidr = cidr(range);
            for random in [0, 1, 77, u32::MAX] {
                let all: Vec<Ipv4Addr> = cidr.from(random).collect();
                let distinct: BTreeSet<_> = all.iter().collect();
                assert_eq!(distinct.len(), all.len());
                assert_eq!(all.len(), cidr.size() as usize - 2, "{range}");
                assert!(all.iter().all(|address| cidr.serves(*address)));
                assert_ne!(all[0], cidr.kubernetes());
            }
        }
        let first: Vec<_> = cidr("10.43.0.0/16").from(0).take(2).collect();
        assert_eq!(first, [Ipv4Addr::new(10, 43, 1, 0), Ipv4Addr::new(10, 43, 1, 1)]);
    }

    #[test]
    fn two_addresses_are_kept() {
        let cidr = ServiceCidr::default();
        assert_eq!(
            cidr.reserved_for(cidr.kubernetes()),
            Some(("default", "kubernetes"))
        );
        assert_eq!(
            cidr.reserved_for(Ipv4Addr::new(10, 43, 0, 10)),
            Some(("kube-system", "kube-dns"))
        );
        assert_eq!(cidr.reserved_for(Ipv4Addr::new(10, 43, 0, 11)), None);
    }
}
