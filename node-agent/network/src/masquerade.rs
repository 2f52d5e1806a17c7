//! Hides pods behind their node when they talk to what is outside the cluster, by one nftables table.

use flotilla_nftables::{Chain, Expression, Hook, Messages, Netlink, Table, Word};

use crate::NetworkError;
use crate::cidr::Cidr;

const HOOK_POSTROUTING: u32 = 4;
/// Where sources are translated.
const PRIORITY: i32 = 100;
/// Where IPv4 has the addresses.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const NAME_BYTES: usize = 16;

/// Puts the table in place, in one transaction.
///
/// Not by the nft program: it reads all tables of the node first, also those that the services and policies are
/// just being written to, and it was seen to fail without a word.
pub(crate) fn install(bridge: &str, pods: Cidr, cluster: Cidr) -> Result<(), NetworkError> {
    let name = name(bridge);
    let table = Table::ipv4(&name);
    let mut messages = Messages::default();
    table.add(&mut messages, None);
    table.delete(&mut messages);
    table.add(&mut messages, None);
    let chain = chain(bridge, pods, cluster);
    table.add_chain(&mut messages, &chain);
    table.add_rules(&mut messages, &chain);
    commit(messages)
}

/// Removes the table if it is there.
pub(crate) fn remove(bridge: &str) -> Result<(), NetworkError> {
    let name = name(bridge);
    let table = Table::ipv4(&name);
    let mut messages = Messages::default();
    table.add(&mut messages, None);
    table.delete(&mut messages);
    commit(messages)
}

fn commit(messages: Messages) -> Result<(), NetworkError> {
    let done = Netlink::open().and_then(|mut netlink| netlink.commit(messages));
    done.map_err(NetworkError::Masquerade)
}

fn name(bridge: &str) -> String {
    let word = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '_'
        }
    };
    format!("flotilla_{}", bridge.chars().map(word).collect::<String>())
}

/// From a pod, to no other pod, and not by the pods' bridge.
fn chain(bridge: &str, pods: Cidr, cluster: Cidr) -> Chain {
    let mut link = bridge.as_bytes().to_vec();
    link.resize(NAME_BYTES, 0);
    let mut rule = Vec::new();
    rule.extend(is_in(SOURCE, pods, true));
    rule.extend(is_in(DESTINATION, cluster, false));
    rule.extend([
        Expression::OutputName { to: Word(0) },
        Expression::Compare {
            word: Word(0),
            equal: false,
            value: link,
        },
        Expression::Masquerade,
    ]);
    Chain {
        name: "postrouting".into(),
        hook: Some(Hook {
            kind: "nat",
            number: HOOK_POSTROUTING,
            priority: PRIORITY,
        }),
        rules: vec![rule],
    }
}

/// Whether the address at this place of the header is of the range, or is not.
fn is_in(offset: u32, range: Cidr, equal: bool) -> [Expression; 3] {
    let word = Word(0);
    let mask = u32::MAX.checked_shl(32 - u32::from(range.prefix())).unwrap_or(0);
    [
        Expression::Network {
            to: word,
            offset,
            length: 4,
        },
        Expression::Mask {
            word,
            mask: mask.to_be_bytes(),
        },
        Expression::Compare {
            word,
            equal,
            value: range.network().octets().to_vec(),
        },
    ]
}
