//! Addresses that services may be given. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Larger pools are a mistake in the prefix.
const PREFIX_MIN: u32 = 16;

/// Ranges of addresses, first and last included; in words as they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPool {
    ranges: Vec<(u32, u32)>,
    text: String,
}

/// Not a list of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part:?} is neither an IPv4 address, a range such as 10.0.0.200-10.0.0.220 nor a network of at most 65536 \
     addresses such as 10.0.0.240/28"
)]
pub struct ParsePoolError {
    part: String,
}

impl AddressPool {
    /// Whether there is no address.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether it has this address.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let address = address.to_bits();
        self.ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&address))
    }

    /// All addresses in order.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.ranges
            .iter()
            .flat_map(|(first, last)| (*first..=*last).map(Ipv4Addr::from_bits))
    }
}

impl FromStr for AddressPool {
    type Err = ParsePoolError;

    fn from_str(text: &str) -> Result<Self, ParsePoolError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let range = |part: &str| {
            range(part).ok_or_else(|| ParsePoolError {
                part: part.to_owned(),
            })
        };
        Ok(Self {
            ranges: parts.map(range).collect::<Result<_, _>>()?,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for AddressPool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn range(part: &str) -> Option<(u32, u32)> {
    let address = |text: &str| text.trim().parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits);
    if let Some((first, last)) = part.split_once('-') {
        let (first, last) = (address(first)?, address(last)?);
        return (first <= last && last - first < 1 << (32 - PREFIX_MIN)).then_some((first, last));
    }
    let Some((network, prefix)) = part.split_once('/') else {
        return address(part).map(|one| (one, one));
    };
    let prefix: u32 = prefix
        .parse()
        .ok()
        .filter(|prefix| (PREFIX_MIN..=32).contains(prefix))?;
    let first = address(network)?;
    let hosts = u32::MAX.checked_shr(prefix).unwrap_or(0);
    (first & hosts == 0).then_some((first, first | hosts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> String {
        match text.parse::<AddressPool>() {
            Ok(pool) => pool
                .addresses()
                .map(|address| address.to_string())
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.part,
        }
    }

    #[test]
    fn pools_are_addresses_ranges_and_networks() {
        assert_eq!(addresses(""), "");
        assert_eq!(addresses("10.0.0.7"), "10.0.0.7");
        assert_eq!(
            addresses("10.0.0.9-10.0.0.10, 10.0.1.4/31"),
            "10.0.0.9 10.0.0.10 10.0.1.4 10.0.1.5"
        );
        for bad in ["10.0.0.9-10.0.0.8", "10.0.0.1/31", "10.0.0.0/8", "fd00::1", "x"] {
            assert_eq!(addresses(bad), bad);
        }
        let pool: AddressPool = "10.0.0.9-10.0.0.10".parse().unwrap();
        assert!(pool.contains(Ipv4Addr::new(10, 0, 0, 10)) && !pool.contains(Ipv4Addr::new(10, 0, 0, 11)));
    }
}
