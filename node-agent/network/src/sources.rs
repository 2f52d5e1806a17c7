//! Pods send under their own address only.
//!
//! Policies know a pod by its address, and a pod may be allowed to write packets of any kind. So what comes from a pod's
//! link must name the pod as its source, in packets and in what it says of itself in ARP. This is asked on the bridge,
//! the last place where a packet is known by its link.

use std::net::Ipv4Addr;

use flotilla_nftables::{
    Attributes, Chain, Expression, Hook, Messages, Netlink, NetlinkError, Set, Table, Verdict, Word,
};
use nix::errno::Errno;

const TABLE: Table = Table::bridge("flotilla_sources");
/// Name of a pod's link, and the pod's address.
const SOURCES: &str = "sources";
/// What the names of all pods' links begin with.
pub(crate) const PREFIX: &str = "pod";

/// What the nft program calls the parts of keys, so that it can print them.
const LINK_NAME: u32 = 41;
const ADDRESS: u32 = 7;
const NAME_BYTES: usize = 16;
const KEY_BYTES: u32 = 20;

const HOOK_PREROUTING: u32 = 0;
/// Before anything else that looks at bridged packets.
const PRIORITY: i32 = -300;

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
/// Where IPv4 and ARP have the sender's address.
const SENDERS: [([u8; 2], u32); 2] = [(IPV4, 12), (ARP, 14)];

/// A pod's link and its address.
pub(crate) type Source = (String, Ipv4Addr);

/// Puts the table in place with these pods, in one transaction.
pub(crate) fn install(sources: &[Source]) -> Result<(), NetlinkError> {
    let mut messages = Messages::default();
    TABLE.add(&mut messages, None);
    TABLE.delete(&mut messages);
    TABLE.add(&mut messages, None);
    let set = Set {
        name: SOURCES.into(),
        flags: 0,
        key_type: Set::concatenated(&[LINK_NAME, ADDRESS]),
        key_length: KEY_BYTES,
        data: None,
        size: None,
    };
    TABLE.add_set(&mut messages, &set, 0);
    TABLE.add_elements(&mut messages, SOURCES, sources, write);
    let chain = chain();
    TABLE.add_chain(&mut messages, &chain);
    TABLE.add_rules(&mut messages, &chain);
    Netlink::open()?.commit(messages)
}

/// Lets a pod send under its address.
pub(crate) fn add(source: Source) -> Result<(), NetlinkError> {
    let mut messages = Messages::default();
    TABLE.add_elements(&mut messages, SOURCES, &[source], write);
    Netlink::open()?.commit(messages)
}

/// Takes that back. One that is not there is no error.
pub(crate) fn remove(source: Source) -> Result<(), NetlinkError> {
    let mut messages = Messages::default();
    TABLE.delete_elements(&mut messages, SOURCES, &[source], write);
    match Netlink::open()?.commit(messages) {
        Err(NetlinkError::Refused {
            source: Errno::ENOENT,
            ..
        }) => Ok(()),
        done => done,
    }
}

/// Removes the table if it is there.
pub(crate) fn uninstall() -> Result<(), NetlinkError> {
    let mut messages = Messages::default();
    TABLE.add(&mut messages, None);
    TABLE.delete(&mut messages);
    Netlink::open()?.commit(messages)
}

fn write((link, address): &Source, list: &mut Attributes<'_>) {
    let mut key = link.as_bytes().to_vec();
    key.resize(NAME_BYTES, 0);
    key.extend(address.octets());
    list.nest(1, |nest| nest.nest(1, |value| value.bytes(1, &key)));
}

/// First what is right, then what pods send else.
fn chain() -> Chain {
    let right = SENDERS.map(|(protocol, offset)| {
        let mut rule = carries(protocol).to_vec();
        rule.extend([
            Expression::InputName { to: Word(0) },
            Expression::Network {
                to: Word(4),
                offset,
                length: 4,
            },
            Expression::Contains {
                set: SOURCES.into(),
                key: Word(0),
            },
            Expression::Conclude(Verdict::Accept),
        ]);
        rule
    });
    let wrong = SENDERS.map(|(protocol, _)| {
        let mut rule = carries(protocol).to_vec();
        rule.extend([
            Expression::InputName { to: Word(0) },
            Expression::Compare {
                word: Word(0),
                equal: true,
                value: PREFIX.as_bytes().to_vec(),
            },
            Expression::Conclude(Verdict::Drop),
        ]);
        rule
    });
    Chain {
        name: "from_pods".into(),
        hook: Some(Hook {
            kind: "filter",
            number: HOOK_PREROUTING,
            priority: PRIORITY,
        }),
        rules: right.into_iter().chain(wrong).collect(),
    }
}

fn carries(protocol: [u8; 2]) -> [Expression; 2] {
    [
        Expression::LinkProtocol { to: Word(0) },
        Expression::Compare {
            word: Word(0),
            equal: true,
            value: protocol.to_vec(),
        },
    ]
}
