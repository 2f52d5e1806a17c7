//! State machines are identical at equal indexes, whichever replica, before and after whatever restart.

use std::collections::BTreeMap;

use crc32fast::Hasher;
use flotilla_store::Snapshot;

/// The state after each index.
#[derive(Default)]
pub(super) struct States(BTreeMap<u64, State>);

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    member: u64,
    term: u64,
    revision: u64,
    sum: u32,
}

impl States {
    /// A replica applied an entry.
    pub(super) fn applied(
        &mut self,
        member: u64,
        (term, index): (u64, u64),
        after: &Snapshot,
    ) -> Result<(), String> {
        let state = State {
            member,
            term,
            revision: after.revision().0,
            sum: sum(after),
        };
        let known = *self.0.entry(index).or_insert(state);
        if (State { member, ..known }) == state {
            return Ok(());
        }
        Err(format!(
            "identical states: after entry {index}, member {} was in term {} at revision {} with state {:08x}, but \
             member {member} is in term {term} at revision {} with state {:08x}",
            known.member, known.term, known.revision, known.sum, state.revision, state.sum
        ))
    }
}

fn sum(state: &Snapshot) -> u32 {
    let mut sum = Hasher::new();
    for object in state.iter() {
        sum.update(object.key.namespace.as_bytes());
        sum.update(object.key.name.as_bytes());
        sum.update(&object.created.0.to_le_bytes());
        sum.update(&object.modified.0.to_le_bytes());
        sum.update(&object.json);
    }
    sum.finalize()
}
