//! The kernel's side: one nftables table, changed in whole transactions.
//!
//! Decides nothing: [`crate::program`] says what comes and goes.

mod layout;

use std::net::Ipv4Addr;

use flotilla_nftables::{Attributes, Messages, Name, Netlink, NetlinkError, Verdict, attributes};
use nix::errno::Errno;

use crate::program::{Changes, Content, Element, NewSet, Way};
use crate::ranges::Range;
use layout::TABLE;

/// Bytes that mark a table as this process's own.
const TOKEN: usize = 16;
const INTERVAL_END: u32 = 1;

/// The table of one network namespace.
#[derive(Debug)]
pub(crate) struct Kernel {
    netlink: Netlink,
    /// What marks the table that we made; none before the first.
    token: Option<[u8; TOKEN]>,
}

impl Kernel {
    /// Changes nothing yet.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink: Netlink::open()?,
            token: None,
        })
    }

    /// Replaces whatever table there is by one with all this. Packets meet the old rules or the new ones, never none.
    pub(crate) fn replace(&mut self, dns: Option<Ipv4Addr>, all: &Changes) -> Result<(), NetlinkError> {
        let token: [u8; TOKEN] = rand::random();
        let mut messages = Messages::default();
        TABLE.add(&mut messages, None);
        TABLE.delete(&mut messages);
        TABLE.add(&mut messages, Some(&token));
        let sets = layout::sets();
        sets.iter()
            .enumerate()
            .for_each(|(id, set)| TABLE.add_set(&mut messages, set, id));
        let chains = layout::base_chains(dns);
        chains
            .iter()
            .for_each(|chain| TABLE.add_chain(&mut messages, chain));
        chains
            .iter()
            .for_each(|chain| TABLE.add_rules(&mut messages, chain));
        add(&mut messages, all, sets.len());
        self.token = None;
        self.netlink.commit(messages)?;
        self.token = Some(token);
        Ok(())
    }

    /// Carries out changes of the table that we made; all of them or none.
    pub(crate) fn change(&mut self, changes: &Changes) -> Result<(), NetlinkError> {
        let mut messages = Messages::default();
        add(&mut messages, changes, 0);
        if messages.is_empty() {
            return Ok(());
        }
        self.netlink.commit(messages)
    }

    /// Whether the table is the one that we made last.
    pub(crate) fn is_intact(&mut self) -> Result<bool, NetlinkError> {
        let mut found = None;
        let asked = self.netlink.dump(TABLE.get(), |body| {
            let userdata = attributes(body).find(|(kind, _)| *kind == 6);
            found = userdata.map(|(_, value)| value.to_vec());
        });
        match asked {
            Err(NetlinkError::Refused {
                source: Errno::ENOENT,
                ..
            }) => Ok(false),
            asked => asked.map(|()| {
                found.is_some() && found.as_deref() == self.token.as_ref().map(<[u8; TOKEN]>::as_slice)
            }),
        }
    }
}

/// What comes before what leads there, what goes after it.
fn add(messages: &mut Messages, changes: &Changes, first_id: usize) {
    for (number, set) in changes.sets.iter().enumerate() {
        TABLE.add_set(messages, &layout::set(set), first_id + number);
        fill(messages, set);
    }
    let chains: Vec<_> = changes.chains.iter().map(layout::chain).collect();
    chains.iter().for_each(|chain| TABLE.add_chain(messages, chain));
    chains.iter().for_each(|chain| TABLE.add_rules(messages, chain));
    for (map, ways) in by_map(&changes.ways_removed) {
        TABLE.delete_elements(messages, map, &ways, |way, list| write_way(way, list));
    }
    for (map, ways) in by_map(&changes.ways_added) {
        TABLE.add_elements(messages, map, &ways, |way, list| write_way(way, list));
    }
    let isolated = layout::ITSELF;
    TABLE.delete_elements(messages, isolated, &changes.isolated_removed, write_itself);
    TABLE.add_elements(messages, isolated, &changes.isolated_added, write_itself);
    for chain in &changes.chains_removed {
        TABLE.delete_chain(messages, chain);
    }
    for (set, elements) in by_set(&changes.removed) {
        TABLE.delete_elements(messages, set, &elements, |element, list| write(**element, list));
    }
    for (set, elements) in by_set(&changes.added) {
        TABLE.add_elements(messages, set, &elements, |element, list| write(**element, list));
    }
    for set in &changes.sets_removed {
        TABLE.delete_set(messages, set);
    }
}

fn fill(messages: &mut Messages, set: &NewSet) {
    match &set.content {
        Content::Addresses(elements) | Content::Ports(elements) => {
            TABLE.add_elements(messages, &set.name, elements, |element, list| {
                write(*element, list)
            });
        }
        Content::Ranges(ranges) => TABLE.add_elements(messages, &set.name, ranges, write_range),
    }
}

fn by_map(ways: &[Way]) -> impl Iterator<Item = (&'static str, Vec<&Way>)> {
    layout::MAPS.into_iter().map(|(direction, map)| {
        let fits = ways.iter().filter(|way| way.direction == direction);
        (map, fits.collect())
    })
}

fn by_set(elements: &[(Name, Element)]) -> Vec<(&str, Vec<&Element>)> {
    let mut sorted: Vec<&(Name, Element)> = elements.iter().collect();
    sorted.sort_unstable();
    let chunks = sorted.chunk_by(|a, b| a.0 == b.0);
    chunks
        .map(|of_set| (&*of_set[0].0, of_set.iter().map(|(_, element)| element).collect()))
        .collect()
}

fn write_way(way: &Way, list: &mut Attributes<'_>) {
    list.nest(1, |nest| {
        nest.nest(1, |key| key.bytes(1, &way.address.octets()));
        nest.nest(2, |value| Verdict::Goto(way.chain.clone()).write(value));
    });
}

fn write_itself(address: &Ipv4Addr, list: &mut Attributes<'_>) {
    let octets = address.octets();
    write_key([octets, octets].as_flattened(), list);
}

fn write(element: Element, list: &mut Attributes<'_>) {
    match element {
        Element::Address(address) => write_key(&address.octets(), list),
        Element::Port(address, protocol, port) => {
            let [high, low] = port.to_be_bytes();
            let words = [address.octets(), [protocol.number(), 0, 0, 0], [high, low, 0, 0]];
            write_key(words.as_flattened(), list);
        }
    }
}

fn write_key(key: &[u8], list: &mut Attributes<'_>) {
    list.nest(1, |nest| nest.nest(1, |value| value.bytes(1, key)));
}

/// Where it begins and where it has ended; what reaches to the last address never ends.
fn write_range(&(first, last): &Range, list: &mut Attributes<'_>) {
    write_key(&first.to_be_bytes(), list);
    if let Some(end) = last.checked_add(1) {
        list.nest(1, |nest| {
            nest.nest(1, |value| value.bytes(1, &end.to_be_bytes()));
            nest.number(3, INTERVAL_END);
        });
    }
}
