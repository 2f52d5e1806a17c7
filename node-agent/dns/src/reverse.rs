//! Names of addresses. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of a name such as `2.1.42.10.in-addr.arpa`, in lower case without the last dot.
pub(crate) fn address(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut labels = digits.rsplit('.');
        for octet in &mut octets {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut bits: u128 = 0;
    let mut count = 0;
    for label in digits.rsplit('.') {
        let is_digit = label.len() == 1;
        bits = bits.checked_shl(4)? | u128::from_str_radix(label, 16).ok().filter(|_| is_digit)?;
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

/// Whether a range such as `10.42.0.0/16` has the address.
pub(crate) fn is_within(address: IpAddr, range: &str) -> bool {
    let Some((first, prefix)) = range.split_once('/') else {
        return false;
    };
    let (Ok(first), Ok(prefix)) = (first.parse::<IpAddr>(), prefix.parse::<u32>()) else {
        return false;
    };
    match (address, first) {
        (IpAddr::V4(one), IpAddr::V4(other)) if prefix <= 32 => {
            let differing = one.to_bits() ^ other.to_bits();
            differing.checked_shr(32 - prefix).unwrap_or(0) == 0
        }
        (IpAddr::V6(one), IpAddr::V6(other)) if prefix <= 128 => {
            let differing = one.to_bits() ^ other.to_bits();
            differing.checked_shr(128 - prefix).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_read_from_the_right() {
        let read = |name: &str| address(name).map(|address| address.to_string());
        assert_eq!(read("2.1.42.10.in-addr.arpa").as_deref(), Some("10.42.1.2"));
        for bad in [
            "42.10.in-addr.arpa",
            "9.2.1.42.10.in-addr.arpa",
            "x.1.42.10.in-addr.arpa",
            "in-addr.arpa",
            "1.0.ip6.arpa",
            "web.default.svc.cluster.local",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let zeros = "0.".repeat(30);
        assert_eq!(read(&format!("7.{zeros}f.ip6.arpa")).as_deref(), Some("f000::7"));
    }

    #[test]
    fn ranges_have_their_addresses() {
        let is_in = |text: &str, range| is_within(text.parse().unwrap(), range);
        assert!(is_in("10.42.200.1", "10.42.0.0/16"));
        assert!(!is_in("10.43.0.1", "10.42.0.0/16"));
        assert!(is_in("10.43.0.1", "0.0.0.0/0"));
        assert!(!is_in("fd00::1", "10.42.0.0/16"));
        assert!(!is_in("10.43.0.1", ""));
    }
}
