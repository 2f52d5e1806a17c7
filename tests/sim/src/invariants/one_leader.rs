//! One leader at a time: no replica goes back to an earlier term, or to a leader that was outbid in the same term.
//!
//! openraft 0.9 votes for (term, id), in this order, so a second leader of a term is one that outbid the first. Raft's
//! own rule, one leader for each term, is its feature `single-term-leader`, which changes what is on disks.

use std::collections::BTreeMap;

use flotilla_raft::Leadership;

/// Whom each replica followed last: term and leader.
#[derive(Default)]
pub(super) struct Leaders(BTreeMap<u64, (u64, u64)>);

impl Leaders {
    /// What a replica says now.
    pub(super) fn observe(&mut self, member: u64, leadership: &Leadership) -> Result<(), String> {
        let Some(leader) = &leadership.leader else {
            return Ok(());
        };
        let now = (leadership.term, leader.id);
        match self.0.insert(member, now) {
            Some(before) if before > now => Err(format!(
                "one leader at a time: member {member} follows {now:?} (term and leader) after {before:?}"
            )),
            _ => Ok(()),
        }
    }
}
