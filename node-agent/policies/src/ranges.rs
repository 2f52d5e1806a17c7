//! Blocks of addresses with exceptions, as ranges. Pure.

use std::net::Ipv4Addr;

use k8s_openapi::api::networking::v1::IPBlock;

/// From the first address to the last, both included.
pub(crate) type Range = (u32, u32);

/// The addresses of these blocks: in order, apart from each other. What is not of IPv4 has none.
pub(crate) fn ranges<'a>(blocks: impl Iterator<Item = &'a IPBlock>) -> Box<[Range]> {
    let mut all: Vec<Range> = blocks.flat_map(without_exceptions).collect();
    all.sort_unstable();
    let mut merged: Vec<Range> = Vec::new();
    for (first, last) in all {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

fn without_exceptions(block: &IPBlock) -> Vec<Range> {
    let mut rest: Vec<Range> = cidr(&block.cidr).into_iter().collect();
    for (from, to) in block.except.iter().flatten().filter_map(|text| cidr(text)) {
        let before = |&(first, last): &Range| (first < from).then(|| (first, last.min(from - 1)));
        let after = |&(first, last): &Range| (last > to).then(|| (first.max(to + 1), last));
        rest = rest
            .iter()
            .flat_map(|range| [before(range), after(range)])
            .flatten()
            .collect();
    }
    rest
}

fn cidr(text: &str) -> Option<Range> {
    let (address, prefix) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    let rest = u32::MAX.checked_shr(prefix).unwrap_or(0);
    let first = address.to_bits() & !rest;
    Some((first, first | rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(blocks: &[(&str, &[&str])], expected: &str) {
        let blocks: Vec<IPBlock> = blocks
            .iter()
            .map(|(cidr, except)| IPBlock {
                cidr: (*cidr).to_owned(),
                except: Some(except.iter().map(|&text| text.to_owned()).collect()),
            })
            .collect();
        let text: Vec<String> = ranges(blocks.iter())
            .iter()
            .map(|&(first, last)| format!("{}-{}", Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last)))
            .collect();
        assert_eq!(text.join(" "), expected);
    }

    #[test]
    fn exceptions_are_cut_out() {
        check(&[("10.0.0.0/8", &[])], "10.0.0.0-10.255.255.255");
        check(&[("0.0.0.0/0", &[])], "0.0.0.0-255.255.255.255");
        check(
            &[("10.0.0.0/8", &["10.1.0.0/16", "10.0.0.0/24", "10.255.0.0/16"])],
            "10.0.1.0-10.0.255.255 10.2.0.0-10.254.255.255",
        );
        check(&[("10.0.0.7/24", &["10.0.0.0/25", "10.0.0.128/25"])], "");
        check(
            &[("0.0.0.0/0", &["0.0.0.0/1", "255.255.255.255/32"])],
            "128.0.0.0-255.255.255.254",
        );
    }

    #[test]
    fn blocks_are_joined() {
        check(
            &[
                ("10.0.1.0/24", &[]),
                ("10.0.0.0/24", &[]),
                ("10.0.1.128/25", &[]),
                ("2001:db8::/64", &[]),
            ],
            "10.0.0.0-10.0.1.255",
        );
        // What one block excludes another may allow.
        check(
            &[("10.0.0.0/24", &["10.0.0.0/25"]), ("10.0.0.5/32", &[])],
            "10.0.0.5-10.0.0.5 10.0.0.128-10.0.0.255",
        );
    }
}
