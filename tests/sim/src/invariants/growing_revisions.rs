//! Revisions grow strictly: with every entry that changes something, and no object is newer than the store.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_store::{Revision, Snapshot};

/// The revision after each index.
#[derive(Default)]
pub(super) struct Revisions(BTreeMap<u64, Revision>);

impl Revisions {
    /// A replica applied an entry.
    pub(super) fn applied(&mut self, member: u64, index: u64, after: &Snapshot) -> Result<(), String> {
        let revision = after.revision();
        let earlier = self.0.range(..index).next_back();
        let later = self.0.range(index + 1..).next();
        let is_between = earlier.is_none_or(|(_, earlier)| *earlier <= revision)
            && later.is_none_or(|(_, later)| revision <= *later);
        if !is_between {
            return Err(format!(
                "growing revisions: member {member} is at revision {revision} after entry {index}, between \
                 {earlier:?} and {later:?}"
            ));
        }
        self.0.insert(index, revision);
        let mut modified = BTreeSet::new();
        for object in after.iter() {
            let is_sound = object.created <= object.modified && object.modified <= revision;
            if !is_sound || !modified.insert(object.modified) {
                return Err(format!(
                    "growing revisions: at revision {revision}, member {member} has {} created at {} and modified \
                     at {}",
                    object.key, object.created, object.modified
                ));
            }
        }
        Ok(())
    }
}
