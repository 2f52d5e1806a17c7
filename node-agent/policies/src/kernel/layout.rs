//! The table, its sets and chains. Pure: names and expressions, no socket.
//!
//! A packet between pods passes two chains of the same hook, after services have found its destination: the first asks
//! what its source may send, the second what its destination may receive. Each lets through what belongs to a
//! connection that was let through, then looks up the pod's address, which leads to what the pod is allowed.

use std::net::Ipv4Addr;

use flotilla_nftables::{Chain, Expression, Hook, Name, Set, Table, Verdict, Word};

use crate::policy::PortRange;
use crate::profile::Direction;
use crate::program::{Body, Content, Line, NewChain, NewSet};

pub(super) const TABLE: Table = Table::ipv4("flotilla_policies");

/// Address of an isolated pod → what it may send, or receive.
pub(super) const MAPS: [(Direction, &str); 2] = [(Direction::Ingress, INGRESS), (Direction::Egress, EGRESS)];
const INGRESS: &str = "ingress";
const EGRESS: &str = "egress";
/// Each isolated pod's address twice: a pod that reaches itself, by a service.
pub(super) const ITSELF: &str = "itself";

/// What the nft program calls the parts of keys, so that it can print them.
const ADDRESS: u32 = 7;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;

const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
/// After services have refused what leads nowhere (-10), before anybody else's filters (0).
const PRIORITY_EGRESS: i32 = -6;
const PRIORITY_INGRESS: i32 = -5;

const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const CONNECTION_STATE: u32 = 0;
/// The bits of `established` and `related`.
const STATE_KNOWN: u32 = 2 | 4;

pub(super) fn sets() -> Vec<Set> {
    let map = |name: &'static str| Set {
        flags: Set::MAP,
        data: Some((Set::VERDICT, 0)),
        ..plain(name.into(), &[ADDRESS])
    };
    vec![
        map(INGRESS),
        map(EGRESS),
        plain(ITSELF.into(), &[ADDRESS, ADDRESS]),
    ]
}

fn plain(name: Name, parts: &[u32]) -> Set {
    Set {
        name,
        flags: 0,
        key_type: Set::concatenated(parts),
        key_length: u32::try_from(parts.len()).unwrap_or(u32::MAX) * 4,
        data: None,
        size: None,
    }
}

pub(super) fn set(new: &NewSet) -> Set {
    let name = new.name.clone();
    match new.content {
        Content::Addresses(_) => plain(name, &[ADDRESS]),
        Content::Ports(_) => plain(name, &[ADDRESS, PROTOCOL, PORT]),
        Content::Ranges(_) => Set {
            flags: Set::INTERVAL,
            ..plain(name, &[ADDRESS])
        },
    }
}

/// The chains that packets enter. What is for this node itself is always let through, but its answers to names count
/// as a pod's.
pub(super) fn base_chains(dns: Option<Ipv4Addr>) -> Vec<Chain> {
    let chain = |name: &'static str, number, priority, rules| Chain {
        name: name.into(),
        hook: Some(Hook {
            kind: "filter",
            number,
            priority,
        }),
        rules,
    };
    let mut all = vec![
        chain(
            "forward_egress",
            HOOK_FORWARD,
            PRIORITY_EGRESS,
            vec![known(), itself(), dispatch(SOURCE, EGRESS)],
        ),
        chain(
            "forward_ingress",
            HOOK_FORWARD,
            PRIORITY_INGRESS,
            vec![known(), itself(), dispatch(DESTINATION, INGRESS)],
        ),
    ];
    all.extend(dns.map(|dns| {
        let mut asks = vec![
            load(DESTINATION, Word(0)),
            Expression::Compare {
                word: Word(0),
                equal: true,
                value: dns.octets().to_vec(),
            },
        ];
        asks.extend(dispatch(SOURCE, EGRESS));
        chain("input_names", HOOK_INPUT, PRIORITY_EGRESS, vec![known(), asks])
    }));
    all
}

fn known() -> Vec<Expression> {
    vec![
        Expression::Connection {
            to: Word(0),
            key: CONNECTION_STATE,
            original: false,
        },
        Expression::Mask {
            word: Word(0),
            mask: STATE_KNOWN.to_ne_bytes(),
        },
        Expression::Compare {
            word: Word(0),
            equal: false,
            value: vec![0; 4],
        },
        Expression::Conclude(Verdict::Accept),
    ]
}

fn itself() -> Vec<Expression> {
    vec![
        load(SOURCE, Word(0)),
        load(DESTINATION, Word(1)),
        Expression::Contains {
            set: ITSELF.into(),
            key: Word(0),
        },
        Expression::Conclude(Verdict::Accept),
    ]
}

fn dispatch(offset: u32, map: &'static str) -> Vec<Expression> {
    vec![
        load(offset, Word(0)),
        Expression::Dispatch {
            map: map.into(),
            key: Word(0),
        },
    ]
}

fn load(offset: u32, to: Word) -> Expression {
    Expression::Network {
        to,
        offset,
        length: 4,
    }
}

pub(super) fn chain(new: &NewChain) -> Chain {
    let rules = match &new.body {
        Body::Ports(ports) => ports.iter().map(port).collect(),
        Body::Allowed(direction, lines) => {
            let drop = vec![Expression::Conclude(Verdict::Drop)];
            lines
                .iter()
                .map(|allowed| line(*direction, allowed))
                .chain([drop])
                .collect()
        }
    };
    Chain {
        name: new.name.clone(),
        hook: None,
        rules,
    }
}

fn port(range: &PortRange) -> Vec<Expression> {
    let mut rule = vec![
        Expression::Protocol { to: Word(0) },
        Expression::Compare {
            word: Word(0),
            equal: true,
            value: vec![range.protocol.number()],
        },
    ];
    let (from, to) = (range.from.to_be_bytes().to_vec(), range.to.to_be_bytes().to_vec());
    let number = Expression::Transport {
        to: Word(0),
        offset: 2,
        length: 2,
    };
    match (range.from, range.to) {
        (0, u16::MAX) => {}
        (first, last) if first == last => rule.extend([
            number,
            Expression::Compare {
                word: Word(0),
                equal: true,
                value: from,
            },
        ]),
        _ => rule.extend([
            number,
            Expression::Range {
                word: Word(0),
                from,
                to,
            },
        ]),
    }
    rule.push(Expression::Conclude(Verdict::Accept));
    rule
}

fn line(direction: Direction, line: &Line) -> Vec<Expression> {
    let mut rule = Vec::new();
    if let Some(set) = &line.peer {
        let offset = match direction {
            Direction::Ingress => SOURCE,
            Direction::Egress => DESTINATION,
        };
        rule.push(load(offset, Word(0)));
        rule.push(Expression::Contains {
            set: set.clone(),
            key: Word(0),
        });
    }
    if let Some(set) = &line.named {
        rule.push(load(DESTINATION, Word(0)));
        rule.push(Expression::Protocol { to: Word(1) });
        rule.push(Expression::Transport {
            to: Word(2),
            offset: 2,
            length: 2,
        });
        rule.push(Expression::Contains {
            set: set.clone(),
            key: Word(0),
        });
    }
    rule.push(Expression::Conclude(match &line.ports {
        Some(chain) => Verdict::Jump(chain.clone()),
        None => Verdict::Accept,
    }));
    rule
}
