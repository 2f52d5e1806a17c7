//! Who may come in by a service's balanced addresses (`spec.loadBalancerSourceRanges`). Pure.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::ServiceSpec;

/// A network: its address and how many bits of it count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Range {
    pub(crate) network: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// The networks that a service names; `None` if it names none and so lets everybody in. One that names only networks of
/// another family lets nobody in here.
pub(crate) fn ranges_of(spec: &ServiceSpec) -> Option<Box<[Range]>> {
    let listed = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    (!listed.is_empty()).then(|| listed.iter().filter_map(|text| parse(text.trim())).collect())
}

fn parse(text: &str) -> Option<Range> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix) = (address.parse::<Ipv4Addr>().ok()?, prefix.parse().ok()?);
    (prefix <= 32).then(|| Range {
        network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)),
        prefix,
    })
}

/// The bits that count.
pub(crate) fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(listed: &[&str]) -> String {
        let spec = ServiceSpec {
            load_balancer_source_ranges: Some(listed.iter().map(|text| (*text).to_owned()).collect()),
            ..ServiceSpec::default()
        };
        match ranges_of(&spec) {
            None => "everybody".to_owned(),
            Some(ranges) => {
                let texts = ranges
                    .iter()
                    .map(|range| format!("{}/{}", range.network, range.prefix));
                texts.collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn ranges_are_networks_and_none_means_everybody() {
        assert_eq!(ranges(&[]), "everybody");
        assert_eq!(
            ranges(&["10.1.2.3/8", " 192.0.2.7/32 ", "0.0.0.0/0"]),
            "10.0.0.0/8 192.0.2.7/32 0.0.0.0/0"
        );
        assert_eq!(ranges(&["fd00::/8"]), "", "nobody of this family");
    }
}
