//! Tables, sets, chains and rules as messages. Pure.

use std::borrow::Cow;

use crate::{Attributes, Expression, Messages};

/// The name of a set, map or chain.
pub type Name = Cow<'static, str>;

const fn nftables(message: u16) -> u16 {
    10 << 8 | message
}
const NEW_TABLE: u16 = nftables(0);
const GET_TABLE: u16 = nftables(1);
const DELETE_TABLE: u16 = nftables(2);
const NEW_CHAIN: u16 = nftables(3);
const DELETE_CHAIN: u16 = nftables(5);
const NEW_RULE: u16 = nftables(6);
const NEW_SET: u16 = nftables(9);
const DELETE_SET: u16 = nftables(11);
const NEW_ELEMENT: u16 = nftables(12);
const GET_ELEMENT: u16 = nftables(13);
const DELETE_ELEMENT: u16 = nftables(14);
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;
const IPV4: u8 = 2;
const BRIDGE: u8 = 7;
/// A list of elements must fit into an attribute of 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;
/// Bits of each part in the type of a concatenated key.
const TYPE_BITS: u32 = 6;

/// A set or map of a table.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its name.
    pub name: Name,
    /// The kernel's flags, [`Set::MAP`] and the like.
    pub flags: u32,
    /// What the nft program calls the key's type, so that it can print it.
    pub key_type: u32,
    /// Bytes of a key.
    pub key_length: u32,
    /// Type and length of what a map has for a key.
    pub data: Option<(u32, u32)>,
    /// Elements at most.
    pub size: Option<u32>,
}

impl Set {
    /// Elements are bounds of intervals.
    pub const INTERVAL: u32 = 0x4;
    /// Keys have values.
    pub const MAP: u32 = 0x8;
    /// Elements may go by themselves.
    pub const TIMEOUT: u32 = 0x10;
    /// Rules change it.
    pub const EVALUATED: u32 = 0x20;
    /// The type of verdicts, as values of a map.
    pub const VERDICT: u32 = 0xffff_ff00;

    /// The type of a key of several parts.
    pub fn concatenated(parts: &[u32]) -> u32 {
        parts.iter().fold(0, |all, part| all << TYPE_BITS | part)
    }
}

/// A chain that the kernel enters by itself.
#[derive(Debug, Clone)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// Where on a packet's way.
    pub number: u32,
    /// When, among all chains there.
    pub priority: i32,
}

/// A chain and its rules.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Its name.
    pub name: Name,
    /// None: other chains lead here.
    pub hook: Option<Hook>,
    /// The rules, in order.
    pub rules: Vec<Vec<Expression>>,
}

/// Messages about one table.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    name: &'a str,
    family: u8,
}

impl<'a> Table<'a> {
    /// A table for packets of IPv4.
    pub const fn ipv4(name: &'a str) -> Self {
        Self { name, family: IPV4 }
    }

    /// A table for what passes bridges.
    pub const fn bridge(name: &'a str) -> Self {
        Self { name, family: BRIDGE }
    }

    /// Makes the table if it is not there.
    pub fn add(self, messages: &mut Messages, userdata: Option<&[u8]>) {
        self.message(messages, ("the table", NEW_TABLE, CREATE), |attributes| {
            if let Some(userdata) = userdata {
                attributes.bytes(6, userdata);
            }
        });
    }

    /// Removes the table with all that is in it.
    pub fn delete(self, messages: &mut Messages) {
        self.message(messages, ("the old table", DELETE_TABLE, 0), |_| {});
    }

    /// Asks for the table; its userdata is attribute 6.
    pub fn get(self) -> Messages {
        let mut request = Messages::default();
        self.message(&mut request, ("the table", GET_TABLE, 0), |_| {});
        request
    }

    /// Makes a set; `id` is any number that no other set of the transaction has.
    pub fn add_set(self, messages: &mut Messages, set: &Set, id: usize) {
        self.message(messages, ("a set", NEW_SET, CREATE), |attributes| {
            attributes.text(2, &set.name);
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

    /// Makes a chain, without its rules: those may lead to chains that come later.
    pub fn add_chain(self, messages: &mut Messages, chain: &Chain) {
        self.message(messages, ("a chain", NEW_CHAIN, CREATE), |attributes| {
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

    /// Adds the rules of a chain.
    pub fn add_rules(self, messages: &mut Messages, chain: &Chain) {
        for rule in &chain.rules {
            self.message(messages, ("a rule", NEW_RULE, CREATE | APPEND), |attributes| {
                attributes.text(2, &chain.name);
                attributes.nest(4, |list| {
                    rule.iter().for_each(|expression| expression.write(list))
                });
            });
        }
    }

    /// Removes a chain with its rules. Nothing may lead there any more.
    pub fn delete_chain(self, messages: &mut Messages, name: &str) {
        self.message(messages, ("the end of a chain", DELETE_CHAIN, 0), |attributes| {
            attributes.text(3, name);
        });
    }

    /// Removes a set that no rule uses.
    pub fn delete_set(self, messages: &mut Messages, name: &str) {
        self.message(messages, ("the end of a set", DELETE_SET, 0), |attributes| {
            attributes.text(2, name);
        });
    }

    /// Adds elements to a set; `write` writes one as an item of the list.
    pub fn add_elements<T>(
        self,
        messages: &mut Messages,
        set: &str,
        elements: &[T],
        write: impl FnMut(&T, &mut Attributes<'_>),
    ) {
        self.elements(
            messages,
            ("new elements", NEW_ELEMENT, CREATE),
            set,
            elements,
            write,
        );
    }

    /// Takes elements out of a set.
    pub fn delete_elements<T>(
        self,
        messages: &mut Messages,
        set: &str,
        elements: &[T],
        write: impl FnMut(&T, &mut Attributes<'_>),
    ) {
        let kind = ("the end of elements", DELETE_ELEMENT, 0);
        self.elements(messages, kind, set, elements, write);
    }

    /// Asks for all elements of a set.
    pub fn get_elements(self, set: &str) -> Messages {
        let mut request = Messages::default();
        let kind = ("the elements", GET_ELEMENT, DUMP);
        self.message(&mut request, kind, |attributes| attributes.text(2, set));
        request
    }

    fn elements<T>(
        self,
        messages: &mut Messages,
        kind: (&'static str, u16, u16),
        set: &str,
        elements: &[T],
        mut write: impl FnMut(&T, &mut Attributes<'_>),
    ) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.message(messages, kind, |attributes| {
                attributes.text(2, set);
                attributes.nest(3, |list| part.iter().for_each(|element| write(element, list)));
            });
        }
    }

    fn message(
        self,
        messages: &mut Messages,
        (what, kind, flags): (&'static str, u16, u16),
        build: impl FnOnce(&mut Attributes<'_>),
    ) {
        messages.add(what, kind, flags, self.family, |attributes| {
            attributes.text(1, self.name);
            build(attributes);
        });
    }
}
