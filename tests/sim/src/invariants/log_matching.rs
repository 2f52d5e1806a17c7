//! Log matching: two logs that have an entry of the same index and term have the same entries up to it.
//!
//! Each entry is compared with every other log's entry of that index and term, and so is what it follows.

use std::collections::BTreeMap;

use flotilla_raft::platform::Place;

/// What the logs have at each place.
#[derive(Default)]
pub(super) struct Logs(BTreeMap<Place, Entry>);

struct Entry {
    member: u64,
    previous: Option<Place>,
    content: u32,
}

impl Logs {
    /// A replica added an entry to its log.
    pub(super) fn appended(
        &mut self,
        member: u64,
        previous: Option<Place>,
        place: Place,
        content: &[u8],
    ) -> Result<(), String> {
        let content = crc32fast::hash(content);
        let known = self.0.entry(place).or_insert(Entry {
            member,
            previous,
            content,
        });
        let other = known.member;
        let Place { term, leader, index } = place;
        if known.content != content {
            return Err(format!(
                "log matching: members {other} and {member} have different entries {index} of term {term} and leader {leader}"
            ));
        }
        if known.previous != previous {
            return Err(format!(
                "log matching: entry {index} of term {term} follows {:?} at member {other} and {previous:?} at {member}",
                known.previous
            ));
        }
        Ok(())
    }
}
