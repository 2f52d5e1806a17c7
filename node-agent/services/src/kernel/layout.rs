//! The table, its sets and the rules that never change. Pure: names and expressions, no socket.
//!
//! Services are elements of maps, not rules. A packet's first look-up, by destination, tells the chain that knows how
//! many backends there are; that chain draws a number and looks up destination and number. So
//! rules are as many as there are different numbers of backends, and changing a service changes its elements only.

mod choice;
mod guard;

use std::net::Ipv4Addr;

use crate::Network;
use flotilla_nftables::{Chain, Dynamic, Expression, Hook, Set, Table, Verdict, Word};

pub(super) use choice::choice;
pub(crate) use guard::{GUARDED, SOURCES};

/// The name of the table.
pub(crate) const TABLE: Table = Table::ipv4("flotilla_services");

/// The maps for connections from one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    /// Destination → chain.
    pub(crate) chains: &'static str,
    /// Destination and number → backend.
    pub(crate) backends: &'static str,
    /// Destination and backend that clients may go back to.
    pub(crate) sticky: &'static str,
}

impl Side {
    /// For connections from anywhere.
    pub(crate) const OUTSIDE: Side = Side {
        chains: "outside",
        backends: "outside_backends",
        sticky: "outside_sticky",
    };
    /// For those from pods and this node, where it differs.
    pub(crate) const INSIDE: Side = Side {
        chains: "inside",
        backends: "inside_backends",
        sticky: "inside_sticky",
    };

    pub(crate) fn of(inside: bool) -> Side {
        if inside { Side::INSIDE } else { Side::OUTSIDE }
    }
}

/// Destination and client → the backend that the client had last.
pub(crate) const CLIENTS: &str = "clients";
/// Destinations whose connections leave with this node's address.
pub(crate) const MASQUERADED: &str = "masqueraded";
/// This node's backends, each with itself: a pod that reached itself.
pub(crate) const HAIRPINS: &str = "hairpins";
/// Destinations without backends → what becomes of packets to them.
pub(crate) const REFUSED: &str = "refused";

// Not "reject" and "drop": the nft program takes those for verdicts and cannot read its own output back.
pub(crate) const REJECT: &str = "rejecting";
pub(crate) const DROP: &str = "dropping";

/// What the nft program calls the parts of keys, so that it can print them.
const ADDRESS: u32 = 7;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const MARK: u32 = 19;
/// Clients that are remembered at most.
const CLIENTS_MAX: u32 = 1 << 20;

/// How a service's backend is chosen; each is a chain of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Choice {
    /// For connections from pods and this node.
    pub(crate) inside: bool,
    /// Backends to choose from.
    pub(crate) count: u32,
    /// How long a client keeps its backend after its last connection.
    pub(crate) sticky_seconds: Option<u32>,
}

impl Choice {
    pub(crate) fn chain(self) -> String {
        let side = if self.inside { "inside" } else { "outside" };
        match self.sticky_seconds {
            None => format!("{side}_{}", self.count),
            Some(seconds) => format!("{side}_{}_{seconds}s", self.count),
        }
    }
}

pub(super) fn sets() -> Vec<Set> {
    let destination = Set::concatenated(&[ADDRESS, PROTOCOL, PORT]);
    let backend = Set::concatenated(&[ADDRESS, PORT]);
    let set = |name: &'static str, key_type, words: u32| Set {
        name: name.into(),
        flags: 0,
        key_type,
        key_length: words * 4,
        data: None,
        size: None,
    };
    let map = |name: &'static str, key_type, words, data_type, length| Set {
        flags: Set::MAP,
        data: Some((data_type, length)),
        ..set(name, key_type, words)
    };
    let sides = [Side::OUTSIDE, Side::INSIDE].into_iter().flat_map(|side| {
        [
            map(side.chains, destination, 3, Set::VERDICT, 0),
            map(
                side.backends,
                Set::concatenated(&[ADDRESS, PROTOCOL, PORT, MARK]),
                4,
                backend,
                8,
            ),
            set(
                side.sticky,
                Set::concatenated(&[ADDRESS, PROTOCOL, PORT, ADDRESS, PORT]),
                5,
            ),
        ]
    });
    let shared = [
        Set {
            flags: Set::MAP | Set::TIMEOUT | Set::EVALUATED,
            size: Some(CLIENTS_MAX),
            ..map(
                CLIENTS,
                Set::concatenated(&[ADDRESS, PROTOCOL, PORT, ADDRESS]),
                4,
                backend,
                8,
            )
        },
        set(MASQUERADED, destination, 3),
        set(HAIRPINS, Set::concatenated(&[ADDRESS, ADDRESS]), 2),
        map(REFUSED, destination, 3, Set::VERDICT, 0),
        set(GUARDED, destination, 3),
        set(
            SOURCES,
            Set::concatenated(&[ADDRESS, PROTOCOL, PORT, ADDRESS, MARK]),
            5,
        ),
    ];
    sides.chain(shared).collect()
}

const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_DESTINATION: i32 = -100;
const PRIORITY_SOURCE: i32 = 100;
/// Before anybody else's filters.
const PRIORITY_FILTER: i32 = -10;

const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const CONNECTION_STATE: u32 = 0;
const CONNECTION_STATUS: u32 = 2;
/// The IPv4 address, in the form that the nft program can print.
const CONNECTION_DESTINATION: u32 = 20;
const CONNECTION_DESTINATION_PORT: u32 = 12;
/// The bits of `established` and `related`.
const STATE_KNOWN: u32 = 2 | 4;
const STATUS_DESTINATION_CHANGED: u32 = 1 << 5;
const TYPE_LOCAL: u32 = 2;
const TCP: u8 = 6;

/// Loads the key of a destination into three words.
fn destination(at: Word) -> [Expression; 3] {
    let (protocol, port) = (Word(at.0 + 1), Word(at.0 + 2));
    [
        Expression::Network {
            to: at,
            offset: DESTINATION,
            length: 4,
        },
        Expression::Protocol { to: protocol },
        Expression::Transport {
            to: port,
            offset: 2,
            length: 2,
        },
    ]
}

fn is_set(word: Word, bits: u32) -> [Expression; 2] {
    [
        Expression::Mask {
            word,
            mask: bits.to_ne_bytes(),
        },
        Expression::Compare {
            word,
            equal: false,
            value: vec![0; 4],
        },
    ]
}

fn is_in(word: Word, (address, prefix): (Ipv4Addr, u8), equal: bool) -> [Expression; 2] {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    [
        Expression::Mask {
            word,
            mask: mask.to_be_bytes(),
        },
        Expression::Compare {
            word,
            equal,
            value: address.octets().to_vec(),
        },
    ]
}

/// The chains that are there from the begin.
pub(super) fn chains(network: &Network) -> Vec<Chain> {
    let hook = |kind, number, priority| {
        Some(Hook {
            kind,
            number,
            priority,
        })
    };
    let nat = |name: &'static str, number, priority, rules| Chain {
        name: name.into(),
        hook: hook("nat", number, priority),
        rules,
    };
    let filter = |name: &'static str, number, rules| Chain {
        name: name.into(),
        hook: hook("filter", number, PRIORITY_FILTER),
        rules,
    };
    let plain = |name: &'static str, rules| Chain {
        name: name.into(),
        hook: None,
        rules,
    };
    vec![
        plain(REJECT, reject()),
        plain(DROP, vec![vec![Expression::Conclude(Verdict::Drop)]]),
        plain(guard::ALLOWED, enter(network)),
        plain(guard::CHAIN, guard::chain()),
        nat(
            "prerouting",
            HOOK_PREROUTING,
            PRIORITY_DESTINATION,
            [vec![guard::enter()], enter(network)].concat(),
        ),
        nat(
            "output",
            HOOK_OUTPUT,
            PRIORITY_DESTINATION,
            vec![dispatch(Side::INSIDE.chains), dispatch(Side::OUTSIDE.chains)],
        ),
        nat("postrouting", HOOK_POSTROUTING, PRIORITY_SOURCE, leave(network)),
        filter("input_filter", HOOK_INPUT, refuse()),
        filter(
            "forward_filter",
            HOOK_FORWARD,
            [refuse(), reject_unserved(network)].concat(),
        ),
        filter(
            "output_filter",
            HOOK_OUTPUT,
            [refuse(), reject_unserved(network)].concat(),
        ),
    ]
}

fn dispatch(map: &'static str) -> Vec<Expression> {
    let mut rule = destination(Word(0)).to_vec();
    rule.push(Expression::Dispatch {
        map: map.into(),
        key: Word(0),
    });
    rule
}

/// Pods' connections first look for what differs for them.
fn enter(network: &Network) -> Vec<Vec<Expression>> {
    let mut from_pods = vec![Expression::Network {
        to: Word(4),
        offset: SOURCE,
        length: 4,
    }];
    from_pods.extend(is_in(Word(4), network.cluster, true));
    from_pods.extend(dispatch(Side::INSIDE.chains));
    vec![from_pods, dispatch(Side::OUTSIDE.chains)]
}

/// Which connections to services leave with this node's address, so that the answers come back here.
fn leave(network: &Network) -> Vec<Vec<Expression>> {
    let is_service = || {
        let status = Expression::Connection {
            to: Word(0),
            key: CONNECTION_STATUS,
            original: false,
        };
        std::iter::once(status).chain(is_set(Word(0), STATUS_DESTINATION_CHANGED))
    };
    let original = |key, to| Expression::Connection {
        to,
        key,
        original: true,
    };
    let hairpin = [
        Expression::Network {
            to: Word(0),
            offset: SOURCE,
            length: 4,
        },
        Expression::Network {
            to: Word(1),
            offset: DESTINATION,
            length: 4,
        },
        Expression::Contains {
            set: HAIRPINS.into(),
            key: Word(0),
        },
        Expression::Masquerade,
    ];
    let external = [
        original(CONNECTION_DESTINATION, Word(0)),
        Expression::Protocol { to: Word(1) },
        original(CONNECTION_DESTINATION_PORT, Word(2)),
        Expression::Contains {
            set: MASQUERADED.into(),
            key: Word(0),
        },
        Expression::Masquerade,
    ];
    // From neither a pod nor this node to a service's own address: somebody routes them here.
    let mut routed: Vec<_> = is_service().collect();
    routed.push(original(CONNECTION_DESTINATION, Word(0)));
    routed.extend(is_in(Word(0), network.services, true));
    routed.push(Expression::Network {
        to: Word(1),
        offset: SOURCE,
        length: 4,
    });
    routed.extend(is_in(Word(1), network.cluster, false));
    routed.push(Expression::AddressType {
        to: Word(2),
        of_source: true,
    });
    routed.push(Expression::Compare {
        word: Word(2),
        equal: false,
        value: TYPE_LOCAL.to_ne_bytes().to_vec(),
    });
    routed.push(Expression::Masquerade);
    let service = |rest: [Expression; 4]| is_service().chain(rest).collect();
    vec![service(hairpin), is_service().chain(external).collect(), routed]
}

/// New connections to services without backends.
fn refuse() -> Vec<Vec<Expression>> {
    let mut known = vec![Expression::Connection {
        to: Word(0),
        key: CONNECTION_STATE,
        original: false,
    }];
    known.extend(is_set(Word(0), STATE_KNOWN));
    known.push(Expression::Conclude(Verdict::Accept));
    vec![known, dispatch(REFUSED)]
}

/// What is left at the addresses of services belongs to none of them.
fn reject_unserved(network: &Network) -> Vec<Vec<Expression>> {
    let reject = || Expression::Conclude(Verdict::Goto(REJECT.into()));
    let load = || Expression::Network {
        to: Word(0),
        offset: DESTINATION,
        length: 4,
    };
    let mut rest = vec![load()];
    rest.extend(is_in(Word(0), network.services, true));
    // One that this node itself has, for names, is served here.
    rest.push(Expression::AddressType {
        to: Word(1),
        of_source: false,
    });
    rest.push(Expression::Compare {
        word: Word(1),
        equal: false,
        value: TYPE_LOCAL.to_ne_bytes().to_vec(),
    });
    rest.push(reject());
    vec![rest]
}

fn reject() -> Vec<Vec<Expression>> {
    vec![
        vec![
            Expression::Protocol { to: Word(0) },
            Expression::Compare {
                word: Word(0),
                equal: true,
                value: vec![TCP],
            },
            Expression::Reset,
        ],
        vec![Expression::Unreachable],
    ]
}
