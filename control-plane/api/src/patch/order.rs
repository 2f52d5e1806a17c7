//! Puts the elements of a merged list into the order that Kubernetes gives them.
//!
//! Elements that the patch names come in the patch's order; those that only the server has keep their places
//! among them as far as that order allows.

use serde_json::Value;

/// How elements are told apart: by a field, or by their whole value when there is none.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a>(pub(super) Option<&'a str>);

impl Identity<'_> {
    pub(super) fn same(self, left: &Value, right: &Value) -> bool {
        match self.0 {
            None => left == right,
            Some(key) => left.get(key).is_some() && left.get(key) == right.get(key),
        }
    }

    pub(super) fn position(self, list: &[Value], element: &Value) -> Option<usize> {
        list.iter().position(|other| self.same(other, element))
    }
}

/// `merged` in the order of `wanted`, with the elements `wanted` does not name placed as in `server`.
pub(super) fn arrange(
    identity: Identity<'_>,
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
) -> Vec<Value> {
    let (mut named, mut others): (Vec<_>, Vec<_>) = merged
        .into_iter()
        .partition(|element| identity.position(wanted, element).is_some());
    named.sort_by_key(|element| identity.position(wanted, element));
    others.sort_by_key(|element| identity.position(server, element).unwrap_or(usize::MAX));
    interleave(identity, others, named, server)
}

/// Takes from `others` only while its head stood before the head of `named` on the server.
fn interleave(identity: Identity<'_>, others: Vec<Value>, named: Vec<Value>, server: &[Value]) -> Vec<Value> {
    let mut result = Vec::with_capacity(others.len() + named.len());
    let mut others = others.into_iter().peekable();
    for element in named {
        let limit = identity.position(server, &element);
        while let (Some(other), Some(limit)) = (others.peek(), limit) {
            if identity
                .position(server, other)
                .is_none_or(|place| place >= limit)
            {
                break;
            }
            result.extend(others.next());
        }
        result.push(element);
    }
    result.extend(others);
    result
}
