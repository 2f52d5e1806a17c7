//! The kernel's side: one nftables table, changed in whole transactions.
//!
//! Decides nothing: [`crate::program`] says which elements come and go.

mod layout;

use std::collections::BTreeSet;

use nix::errno::Errno;

pub(crate) use layout::{Choice, DROP, GUARDED, HAIRPINS, MASQUERADED, REFUSED, REJECT, SOURCES, Side};

use crate::Network;
use flotilla_nftables::{Attributes, Messages, Netlink, NetlinkError, Verdict, attributes};
use layout::{CLIENTS, TABLE};

/// Bytes that mark a table as this process's own.
const TOKEN: usize = 16;

/// What a map has for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Data {
    /// Nothing: the element is of a set.
    None,
    /// One word, or two.
    Words([u8; 8], u8),
    /// To the chain that makes the choice.
    Choose(Choice),
    /// To a chain that is always there.
    Chain(&'static str),
}

/// One element of a set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Element {
    pub(crate) set: &'static str,
    /// The key's bytes, of which the first `key_words` words count.
    pub(crate) key: [u8; 20],
    pub(crate) key_words: u8,
    pub(crate) data: Data,
}

/// What is to change.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) removed: Vec<Element>,
    pub(crate) added: Vec<Element>,
}

/// The table of one network namespace.
pub(crate) struct Kernel {
    netlink: Netlink,
    network: Network,
    /// What marks the table that we made; none before the first.
    token: Option<[u8; TOKEN]>,
    chains: BTreeSet<Choice>,
}

impl Kernel {
    /// Changes nothing yet.
    pub(crate) fn open(network: Network) -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink: Netlink::open()?,
            network,
            token: None,
            chains: BTreeSet::new(),
        })
    }

    /// Replaces whatever table there is by one with these elements. Packets meet the old rules or the new ones, never
    /// none. Clients keep their backends.
    pub(crate) fn replace(&mut self, elements: &[Element]) -> Result<(), NetlinkError> {
        let clients = self.clients();
        let token: [u8; TOKEN] = rand::random();
        let mut messages = Messages::default();
        TABLE.add(&mut messages, None);
        TABLE.delete(&mut messages);
        TABLE.add(&mut messages, Some(&token));
        layout::sets()
            .iter()
            .enumerate()
            .for_each(|(id, set)| TABLE.add_set(&mut messages, set, id));
        let chains = layout::chains(&self.network);
        chains
            .iter()
            .for_each(|chain| TABLE.add_chain(&mut messages, chain));
        chains
            .iter()
            .for_each(|chain| TABLE.add_rules(&mut messages, chain));
        let needed = choices(elements);
        needed
            .iter()
            .for_each(|choice| add_choice(&mut messages, *choice));
        add_elements(&mut messages, elements);
        add_clients(&mut messages, &clients);
        self.token = None;
        self.netlink.commit(messages)?;
        (self.token, self.chains) = (Some(token), needed);
        Ok(())
    }

    /// Carries out changes of the table that we made; all of them or none.
    pub(crate) fn change(&mut self, changes: &Changes) -> Result<(), NetlinkError> {
        let mut messages = Messages::default();
        let needed: Vec<_> = choices(&changes.added)
            .difference(&self.chains)
            .copied()
            .collect();
        needed
            .iter()
            .for_each(|choice| add_choice(&mut messages, *choice));
        delete_elements(&mut messages, &changes.removed);
        add_elements(&mut messages, &changes.added);
        if messages.is_empty() {
            return Ok(());
        }
        self.netlink.commit(messages)?;
        self.chains.extend(needed);
        Ok(())
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

    /// Takes the table away; none is no error.
    #[cfg(test)]
    pub(crate) fn remove(&mut self) -> Result<(), NetlinkError> {
        let mut messages = Messages::default();
        TABLE.add(&mut messages, None);
        TABLE.delete(&mut messages);
        self.token = None;
        self.netlink.commit(messages)
    }

    /// The clients that are remembered, as the kernel tells them. Without a table there are none.
    fn clients(&mut self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let asked = self.elements(CLIENTS, |element| found.push(element.to_vec()));
        if let Err(error) = asked {
            tracing::debug!(
                error = flotilla_report::report(&error),
                "no clients are remembered"
            );
        }
        found
    }

    fn elements(&mut self, set: &str, mut take: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        self.netlink.dump(TABLE.get_elements(set), |body| {
            let lists = attributes(body).filter(|(kind, _)| *kind == 3);
            lists
                .flat_map(|(_, list)| attributes(list))
                .for_each(|(_, element)| take(element));
        })
    }
}

fn choices(elements: &[Element]) -> BTreeSet<Choice> {
    let chosen = elements.iter().filter_map(|element| match element.data {
        Data::Choose(choice) => Some(choice),
        _ => None,
    });
    chosen.collect()
}

fn add_choice(messages: &mut Messages, choice: Choice) {
    let chain = layout::choice(choice);
    TABLE.add_chain(messages, &chain);
    TABLE.add_rules(messages, &chain);
}

fn add_elements(messages: &mut Messages, elements: &[Element]) {
    by_set(elements, |set, part| {
        TABLE.add_elements(messages, set, part, |element, list| write(element, list))
    });
}

fn delete_elements(messages: &mut Messages, elements: &[Element]) {
    by_set(elements, |set, part| {
        TABLE.delete_elements(messages, set, part, |element, list| write(element, list))
    });
}

/// Elements of one set share messages.
fn by_set(elements: &[Element], mut take: impl FnMut(&'static str, &[&Element])) {
    let mut sorted: Vec<&Element> = elements.iter().collect();
    sorted.sort_by_key(|element| element.set);
    sorted
        .chunk_by(|a, b| a.set == b.set)
        .for_each(|of_set| take(of_set[0].set, of_set));
}

fn write(element: &Element, list: &mut Attributes<'_>) {
    list.nest(1, |nest| {
        let key = &element.key[..usize::from(element.key_words) * 4];
        nest.nest(1, |value| value.bytes(1, key));
        match element.data {
            Data::None => {}
            Data::Words(words, count) => {
                nest.nest(2, |value| value.bytes(1, &words[..usize::from(count) * 4]));
            }
            Data::Choose(choice) => nest.nest(2, |value| Verdict::Goto(choice.chain().into()).write(value)),
            Data::Chain(chain) => nest.nest(2, |value| Verdict::Goto(chain.into()).write(value)),
        }
    });
}

/// Puts remembered clients back as the kernel told them.
fn add_clients(messages: &mut Messages, clients: &[Vec<u8>]) {
    TABLE.add_elements(messages, CLIENTS, clients, |client, list| {
        list.nest(1, |nest| copy_client(client, nest));
    });
}

/// Key, data, timeout and what is left of it; the key and data are nests themselves.
fn copy_client(client: &[u8], nest: &mut Attributes<'_>) {
    for (kind, value) in attributes(client) {
        match kind {
            1 | 2 => nest.nest(kind, |inner| {
                attributes(value).for_each(|(kind, value)| inner.bytes(kind, value));
            }),
            4 | 5 => nest.bytes(kind, value),
            _ => {}
        }
    }
}
