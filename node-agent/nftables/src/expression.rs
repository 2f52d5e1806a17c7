//! The expressions that rules are made of, as bytes for the kernel. Pure.
//!
//! Registers are numbered in words of four bytes; a key or value of several words lies in consecutive ones.

use crate::{Attributes, Name};

/// Number of the first register of four bytes.
const REGISTER_BASE: u32 = 8;
/// The register that holds a verdict.
const VERDICT: u32 = 0;

/// A register of four bytes, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u32);

impl Word {
    fn number(self) -> u32 {
        REGISTER_BASE + self.0
    }
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On, out of all chains of this hook.
    Accept,
    /// Nowhere.
    Drop,
    /// To a chain, and not back.
    Goto(Name),
    /// To a chain, and on here if that one has no verdict.
    Jump(Name),
}

/// What a mapping keeps of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    /// Notes what is new.
    Add = 0,
    /// Notes it anew.
    Update = 1,
    /// Forgets.
    Delete = 2,
}

/// One step of a rule. A step that does not fit ends the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads from the header of the network, IPv4's or ARP's.
    Network {
        /// Where it goes.
        to: Word,
        /// Bytes from its begin.
        offset: u32,
        /// How many bytes.
        length: u32,
    },
    /// Loads from the transport header.
    Transport {
        /// Where it goes.
        to: Word,
        /// Bytes from its begin.
        offset: u32,
        /// How many bytes.
        length: u32,
    },
    /// Loads the number of the transport protocol.
    Protocol {
        /// Where it goes.
        to: Word,
    },
    /// Loads the number of the protocol that the link carries, as IPv4's 0x0800.
    LinkProtocol {
        /// Where it goes.
        to: Word,
    },
    /// Loads the name of the link that the packet came by: four words.
    InputName {
        /// Where it goes.
        to: Word,
    },
    /// Loads the name of the link that the packet leaves by: four words.
    OutputName {
        /// Where it goes.
        to: Word,
    },
    /// Loads a field of the connection; `original` picks the direction where there is one.
    Connection {
        /// Where it goes.
        to: Word,
        /// What to look up or load.
        key: u32,
        /// The connection's first direction.
        original: bool,
    },
    /// Loads the type of an address by the routing table.
    AddressType {
        /// Where it goes.
        to: Word,
        /// Of the packet's source, not its destination.
        of_source: bool,
    },
    /// Keeps the bits of the mask.
    Mask {
        /// The register.
        word: Word,
        /// The bits.
        mask: [u8; 4],
    },
    /// Goes on if equal (or not).
    Compare {
        /// The register.
        word: Word,
        /// Or not.
        equal: bool,
        /// What with.
        value: Vec<u8>,
    },
    /// Goes on if the first bytes are from `from` to `to`, both included.
    Range {
        /// The register.
        word: Word,
        /// The least.
        from: Vec<u8>,
        /// The greatest.
        to: Vec<u8>,
    },
    /// Loads a constant.
    Constant {
        /// Where it goes.
        to: Word,
        /// What with.
        value: [u8; 4],
    },
    /// Loads a random number below the modulus.
    Random {
        /// Where it goes.
        to: Word,
        /// The bound.
        modulus: u32,
    },
    /// Goes on if the key is in the set.
    Contains {
        /// The set.
        set: Name,
        /// What to look up or load.
        key: Word,
    },
    /// Loads what the map has for the key.
    Load {
        /// The map.
        map: Name,
        /// What to look up or load.
        key: Word,
        /// Where it goes.
        to: Word,
    },
    /// Does what the map says for the key.
    Dispatch {
        /// The map.
        map: Name,
        /// What to look up or load.
        key: Word,
    },
    /// Changes a map.
    Remember {
        /// The map.
        map: Name,
        /// How.
        what: Dynamic,
        /// What to look up or load.
        key: Word,
        /// What with.
        value: Word,
        /// For how long.
        seconds: u32,
    },
    /// Sends the connection to an address and port.
    Destination {
        /// The register of the address.
        address: Word,
        /// The register of the port.
        port: Word,
    },
    /// Gives the connection this node's address as its source.
    Masquerade,
    /// Answers with a reset.
    Reset,
    /// Answers that the port is unreachable.
    Unreachable,
    /// Ends with a verdict.
    Conclude(Verdict),
}

const PAYLOAD_NETWORK: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;
const META_LINK_PROTOCOL: u32 = 1;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;
const META_PROTOCOL: u32 = 16;
const FIB_RESULT_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const NAT_DESTINATION: u32 = 1;
const IPV4: u32 = 2;
const RANGE_WITHIN: u32 = 0;
const REJECT_UNREACHABLE: u32 = 0;
const REJECT_RESET: u32 = 1;
const ICMP_PORT_UNREACHABLE: u8 = 3;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_GOTO: i32 = -4;

impl Expression {
    /// Writes the expression as an element of a rule's list.
    pub fn write(&self, list: &mut Attributes<'_>) {
        list.nest(1, |element| {
            element.text(1, self.name());
            element.nest(2, |data| self.write_data(data));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Expression::Network { .. } | Expression::Transport { .. } => "payload",
            Expression::Protocol { .. }
            | Expression::LinkProtocol { .. }
            | Expression::InputName { .. }
            | Expression::OutputName { .. } => "meta",
            Expression::Connection { .. } => "ct",
            Expression::AddressType { .. } => "fib",
            Expression::Mask { .. } => "bitwise",
            Expression::Compare { .. } => "cmp",
            Expression::Range { .. } => "range",
            Expression::Constant { .. } | Expression::Conclude(_) => "immediate",
            Expression::Random { .. } => "numgen",
            Expression::Contains { .. } | Expression::Load { .. } | Expression::Dispatch { .. } => "lookup",
            Expression::Remember { .. } => "dynset",
            Expression::Destination { .. } => "nat",
            Expression::Masquerade => "masq",
            Expression::Reset | Expression::Unreachable => "reject",
        }
    }

    fn write_data(&self, data: &mut Attributes<'_>) {
        match self {
            Expression::Network { to, offset, length } => {
                payload(data, *to, PAYLOAD_NETWORK, *offset, *length)
            }
            Expression::Transport { to, offset, length } => {
                payload(data, *to, PAYLOAD_TRANSPORT, *offset, *length);
            }
            Expression::Protocol { to } => meta(data, *to, META_PROTOCOL),
            Expression::LinkProtocol { to } => meta(data, *to, META_LINK_PROTOCOL),
            Expression::InputName { to } => meta(data, *to, META_INPUT_NAME),
            Expression::OutputName { to } => meta(data, *to, META_OUTPUT_NAME),
            Expression::Connection { to, key, original } => {
                numbers(data, &[(1, to.number()), (2, *key)]);
                if *original {
                    data.bytes(3, &[0]);
                }
            }
            Expression::AddressType { to, of_source } => {
                let flags = if *of_source { FIB_SOURCE } else { FIB_DESTINATION };
                numbers(data, &[(1, to.number()), (2, FIB_RESULT_TYPE), (3, flags)]);
            }
            Expression::Mask { word, mask } => {
                numbers(data, &[(1, word.number()), (2, word.number()), (3, 4)]);
                data.nest(4, |value| value.bytes(1, mask));
                data.nest(5, |value| value.bytes(1, &[0; 4]));
            }
            Expression::Compare { word, equal, value } => {
                numbers(data, &[(1, word.number()), (2, u32::from(!*equal))]);
                data.nest(3, |nest| nest.bytes(1, value));
            }
            Expression::Range { word, from, to } => {
                numbers(data, &[(1, word.number()), (2, RANGE_WITHIN)]);
                data.nest(3, |nest| nest.bytes(1, from));
                data.nest(4, |nest| nest.bytes(1, to));
            }
            Expression::Constant { to, value } => {
                data.number(1, to.number());
                data.nest(2, |nest| nest.bytes(1, value));
            }
            Expression::Random { to, modulus } => {
                numbers(data, &[(1, to.number()), (2, *modulus), (3, 1), (4, 0)]);
            }
            Expression::Destination { address, port } => {
                let (address, port) = (address.number(), port.number());
                numbers(data, &[(1, NAT_DESTINATION), (2, IPV4), (3, address), (5, port)]);
            }
            Expression::Masquerade => {}
            Expression::Reset => {
                data.number(1, REJECT_RESET);
                data.bytes(2, &[0]);
            }
            Expression::Unreachable => {
                data.number(1, REJECT_UNREACHABLE);
                data.bytes(2, &[ICMP_PORT_UNREACHABLE]);
            }
            Expression::Conclude(verdict) => {
                data.number(1, VERDICT);
                data.nest(2, |nest| verdict.write(nest));
            }
            _ => self.write_lookup(data),
        }
    }

    fn write_lookup(&self, data: &mut Attributes<'_>) {
        match self {
            Expression::Contains { set, key } => {
                data.text(1, set);
                data.number(2, key.number());
            }
            Expression::Load { map, key, to } => {
                data.text(1, map);
                numbers(data, &[(2, key.number()), (3, to.number())]);
            }
            Expression::Dispatch { map, key } => {
                data.text(1, map);
                numbers(data, &[(2, key.number()), (3, VERDICT)]);
            }
            Expression::Remember {
                map,
                what,
                key,
                value,
                seconds,
            } => {
                data.text(1, map);
                numbers(data, &[(3, *what as u32), (4, key.number()), (5, value.number())]);
                if *what != Dynamic::Delete {
                    data.long(6, u64::from(*seconds) * 1000);
                }
            }
            _ => {}
        }
    }
}

impl Verdict {
    /// Writes the verdict as data of an expression or of a map's element.
    pub fn write(&self, data: &mut Attributes<'_>) {
        data.nest(2, |verdict| match self {
            Verdict::Accept => verdict.number(1, NF_ACCEPT),
            Verdict::Drop => verdict.number(1, NF_DROP),
            Verdict::Goto(chain) => lead(verdict, NFT_GOTO, chain),
            Verdict::Jump(chain) => lead(verdict, NFT_JUMP, chain),
        });
    }
}

fn meta(data: &mut Attributes<'_>, to: Word, key: u32) {
    numbers(data, &[(1, to.number()), (2, key)]);
}

fn lead(verdict: &mut Attributes<'_>, how: i32, chain: &str) {
    verdict.bytes(1, &how.to_be_bytes());
    verdict.text(2, chain);
}

fn payload(data: &mut Attributes<'_>, to: Word, base: u32, offset: u32, length: u32) {
    numbers(data, &[(1, to.number()), (2, base), (3, offset), (4, length)]);
}

fn numbers(data: &mut Attributes<'_>, all: &[(u16, u32)]) {
    all.iter().for_each(|(kind, value)| data.number(*kind, *value));
}
