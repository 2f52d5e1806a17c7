//! The rules of the chains that choose a backend: at random, or the one that the client had before.

use super::{CLIENTS, Chain, Choice, Dynamic, Expression, SOURCE, Side, Word, destination};

/// The chain that chooses among so many backends.
pub(in super::super) fn choice(choice: Choice) -> Chain {
    let side = Side::of(choice.inside);
    let rules = match choice.sticky_seconds {
        None => vec![draw(side, choice.count, None)],
        Some(seconds) => vec![
            return_to(side, seconds),
            forget(),
            draw(side, choice.count, Some(seconds)),
        ],
    };
    Chain {
        name: choice.chain().into(),
        hook: None,
        rules,
    }
}

/// Words: destination 0–2, number and then client 3, backend 4–5.
fn draw(side: Side, count: u32, sticky_seconds: Option<u32>) -> Vec<Expression> {
    let mut rule = destination(Word(0)).to_vec();
    rule.push(Expression::Random {
        to: Word(3),
        modulus: count,
    });
    rule.push(Expression::Load {
        map: side.backends.into(),
        key: Word(0),
        to: Word(4),
    });
    if let Some(seconds) = sticky_seconds {
        rule.push(client());
        rule.push(remember(Dynamic::Add, Word(4), seconds));
    }
    rule.push(Expression::Destination {
        address: Word(4),
        port: Word(5),
    });
    rule
}

/// Takes a client back to its backend if that one is still there. Words: destination 0–2, client 3; for the look-up of
/// destination and backend 4–6 and 7–8.
fn return_to(side: Side, seconds: u32) -> Vec<Expression> {
    let mut rule = destination(Word(0)).to_vec();
    rule.push(client());
    rule.push(Expression::Load {
        map: CLIENTS.into(),
        key: Word(0),
        to: Word(7),
    });
    rule.extend(destination(Word(4)));
    rule.push(Expression::Contains {
        set: side.sticky.into(),
        key: Word(4),
    });
    rule.push(remember(Dynamic::Update, Word(7), seconds));
    rule.push(Expression::Destination {
        address: Word(7),
        port: Word(8),
    });
    rule
}

/// A client whose backend is gone is forgotten, so that it can be given another one.
fn forget() -> Vec<Expression> {
    let mut rule = destination(Word(0)).to_vec();
    rule.push(client());
    for to in [Word(4), Word(5)] {
        rule.push(Expression::Constant { to, value: [0; 4] });
    }
    rule.push(remember(Dynamic::Delete, Word(4), 0));
    rule
}

/// Loads the client behind the destination.
fn client() -> Expression {
    Expression::Network {
        to: Word(3),
        offset: SOURCE,
        length: 4,
    }
}

fn remember(what: Dynamic, value: Word, seconds: u32) -> Expression {
    Expression::Remember {
        map: CLIENTS.into(),
        what,
        key: Word(0),
        value,
        seconds,
    }
}
