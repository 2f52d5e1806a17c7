//! The kernel's side: one nftables table, changed in whole transactions.
//!
//! Decides nothing: [`crate::program`] says which elements come and go.

mod expression;
mod layout;

use std::collections::BTreeSet;

use nix::errno::Errno;

pub(crate) use layout::{Choice, DROP, HAIRPINS, MASQUERADED, REFUSED, REJECT, Side};

use crate::Network;
use crate::netlink::{Attributes, Messages, Netlink, NetlinkError, attributes};
use expression::Verdict;
use layout::{CLIENTS, Chain, Set, TABLE};

const fn nftables(message: u16) -> u16 {
    10 << 8 | message
}
const NEW_TABLE: u16 = nftables(0);
const GET_TABLE: u16 = nftables(1);
const DELETE_TABLE: u16 = nftables(2);
const NEW_CHAIN: u16 = nftables(3);
const NEW_RULE: u16 = nftables(6);
const NEW_SET: u16 = nftables(9);
const NEW_ELEMENT: u16 = nftables(12);
const GET_ELEMENT: u16 = nftables(13);
const DELETE_ELEMENT: u16 = nftables(14);
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;
const IPV4: u8 = 2;
/// A list of elements must fit into an attribute of 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;
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
        table(&mut messages, "the table", NEW_TABLE, CREATE, None);
        table(&mut messages, "the old table", DELETE_TABLE, 0, None);
        table(&mut messages, "the new table", NEW_TABLE, CREATE, Some(&token));
        layout::sets()
            .iter()
            .enumerate()
            .for_each(|(id, set)| add_set(&mut messages, set, id));
        let chains = layout::chains(&self.network);
        chains.iter().for_each(|chain| add_chain(&mut messages, chain));
        chains.iter().for_each(|chain| add_rules(&mut messages, chain));
        let needed = choices(elements);
        needed
            .iter()
            .for_each(|choice| add_choice(&mut messages, *choice));
        add_elements(&mut messages, NEW_ELEMENT, elements);
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
        add_elements(&mut messages, DELETE_ELEMENT, &changes.removed);
        add_elements(&mut messages, NEW_ELEMENT, &changes.added);
        if messages.is_empty() {
            return Ok(());
        }
        self.netlink.commit(messages)?;
        self.chains.extend(needed);
        Ok(())
    }

    /// Whether the table is the one that we made last.
    pub(crate) fn is_intact(&mut self) -> Result<bool, NetlinkError> {
        let mut request = Messages::default();
        request.add("the table", GET_TABLE, 0, IPV4, |attributes| {
            attributes.text(1, TABLE)
        });
        let mut found = None;
        let asked = self.netlink.dump(request, |body| {
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
        table(&mut messages, "the table", NEW_TABLE, CREATE, None);
        table(&mut messages, "the table", DELETE_TABLE, 0, None);
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
        let mut request = Messages::default();
        request.add("the elements", GET_ELEMENT, DUMP, IPV4, |attributes| {
            attributes.text(1, TABLE);
            attributes.text(2, set);
        });
        self.netlink.dump(request, |body| {
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

fn table(messages: &mut Messages, what: &'static str, kind: u16, flags: u16, token: Option<&[u8]>) {
    messages.add(what, kind, flags, IPV4, |attributes| {
        attributes.text(1, TABLE);
        if let Some(token) = token {
            attributes.bytes(6, token);
        }
    });
}

fn add_set(messages: &mut Messages, set: &Set, id: usize) {
    messages.add("a set", NEW_SET, CREATE, IPV4, |attributes| {
        attributes.text(1, TABLE);
        attributes.text(2, set.name);
        attributes.number(3, set.flags);
        attributes.number(4, set.key_type);
        attributes.number(5, set.key_length);
        if let Some((kind, length)) = set.data {
            attributes.number(6, kind);
            attributes.number(7, length);
        }
        if let Some(size) = set.size {
            attributes.nest(9, |description| description.number(1, size));
        }
        attributes.number(10, u32::try_from(id).unwrap_or(u32::MAX) + 1);
    });
}

fn add_chain(messages: &mut Messages, chain: &Chain) {
    messages.add("a chain", NEW_CHAIN, CREATE, IPV4, |attributes| {
        attributes.text(1, TABLE);
        attributes.text(3, &chain.name);
        if let Some(hook) = &chain.hook {
            attributes.nest(4, |nest| {
                nest.number(1, hook.number);
                nest.bytes(2, &hook.priority.to_be_bytes());
            });
            attributes.text(7, hook.kind);
        }
    });
}

fn add_rules(messages: &mut Messages, chain: &Chain) {
    for rule in &chain.rules {
        messages.add("a rule", NEW_RULE, CREATE | APPEND, IPV4, |attributes| {
            attributes.text(1, TABLE);
            attributes.text(2, &chain.name);
            attributes.nest(4, |list| {
                rule.iter().for_each(|expression| expression.write(list))
            });
        });
    }
}

fn add_choice(messages: &mut Messages, choice: Choice) {
    let chain = layout::choice(choice);
    add_chain(messages, &chain);
    add_rules(messages, &chain);
}

/// Elements of one set share messages.
fn add_elements(messages: &mut Messages, kind: u16, elements: &[Element]) {
    let what = if kind == NEW_ELEMENT {
        "new elements"
    } else {
        "the end of elements"
    };
    let flags = if kind == NEW_ELEMENT { CREATE } else { 0 };
    let mut sorted: Vec<&Element> = elements.iter().collect();
    sorted.sort_by_key(|element| element.set);
    for of_set in sorted.chunk_by(|a, b| a.set == b.set) {
        for part in of_set.chunks(ELEMENTS_PER_MESSAGE) {
            messages.add(what, kind, flags, IPV4, |attributes| {
                attributes.text(1, TABLE);
                attributes.text(2, part[0].set);
                attributes.nest(3, |list| part.iter().for_each(|element| write(element, list)));
            });
        }
    }
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
            Data::Choose(choice) => nest.nest(2, |value| Verdict::Goto(choice.chain()).write(value)),
            Data::Chain(chain) => nest.nest(2, |value| Verdict::Goto(chain.to_owned()).write(value)),
        }
    });
}

/// Puts remembered clients back as the kernel told them.
fn add_clients(messages: &mut Messages, clients: &[Vec<u8>]) {
    for part in clients.chunks(ELEMENTS_PER_MESSAGE) {
        messages.add("remembered clients", NEW_ELEMENT, CREATE, IPV4, |attributes_| {
            attributes_.text(1, TABLE);
            attributes_.text(2, CLIENTS);
            attributes_.nest(3, |list| {
                for client in part {
                    list.nest(1, |nest| copy_client(client, nest));
                }
            });
        });
    }
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
