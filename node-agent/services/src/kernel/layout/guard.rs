//! The rules for destinations that only some sources may reach.
//!
//! A source is looked up once for each length that a network's prefix can have: such connections pay for that at their
//! first packet, all others for one look-up.

use super::{Expression, SOURCE, Verdict, Word, destination};
use crate::sources::mask;

/// Destinations with a list of sources.
pub(crate) const GUARDED: &str = "guarded";
/// Destination, network and prefix length of those who may reach it.
pub(crate) const SOURCES: &str = "sources";

/// The chain that looks a source up.
pub(super) const CHAIN: &str = "guard";
/// Where those go that may pass.
pub(super) const ALLOWED: &str = "allowed";

/// Sends what is for a guarded destination to the guard.
pub(super) fn enter() -> Vec<Expression> {
    let mut rule = destination(Word(0)).to_vec();
    rule.push(Expression::Contains {
        set: GUARDED.into(),
        key: Word(0),
    });
    rule.push(Expression::Conclude(Verdict::Goto(CHAIN.into())));
    rule
}

/// Lets through who is in one of the networks.
pub(super) fn chain() -> Vec<Vec<Expression>> {
    let mut rules: Vec<_> = (0..=32).rev().map(pass).collect();
    rules.push(vec![Expression::Conclude(Verdict::Drop)]);
    rules
}

/// Words: destination 0–2, network 3, length of its prefix 4.
fn pass(prefix: u8) -> Vec<Expression> {
    let mut rule = destination(Word(0)).to_vec();
    rule.push(Expression::Network {
        to: Word(3),
        offset: SOURCE,
        length: 4,
    });
    rule.push(Expression::Mask {
        word: Word(3),
        mask: mask(prefix).to_be_bytes(),
    });
    rule.push(Expression::Constant {
        to: Word(4),
        value: u32::from(prefix).to_ne_bytes(),
    });
    rule.push(Expression::Contains {
        set: SOURCES.into(),
        key: Word(0),
    });
    rule.push(Expression::Conclude(Verdict::Goto(ALLOWED.into())));
    rule
}
