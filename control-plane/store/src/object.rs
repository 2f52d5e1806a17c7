//! An object on its way in, and as it is stored.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::key::{Key, Revision};

/// Canonical JSON of an object without `metadata.resourceVersion`, and where that goes.
///
/// At apply, `"resourceVersion":"<n>",` is inserted at byte `revision_at`, which is just after `"metadata":{`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// The object's JSON.
    pub json: Bytes,
    /// Byte offset of the first field of `metadata`, which must not be empty.
    pub revision_at: usize,
}

impl fmt::Debug for Draft {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Draft({})", String::from_utf8_lossy(&self.json))
    }
}

/// One object as every reader gets it: JSON with its resourceVersion, made once and shared.
#[derive(Serialize, Deserialize)]
pub struct Stored {
    /// Where it lives.
    pub key: Key,
    /// The object's JSON with `metadata.resourceVersion`.
    pub json: Bytes,
    /// The change that created it.
    pub created: Revision,
    /// The change that made this state; it is the object's `metadata.resourceVersion`.
    pub modified: Revision,
    revision_at: usize,
    #[serde(skip)]
    cache: Mutex<Option<Decoded>>,
}

type Decoded = Arc<dyn Any + Send + Sync>;

impl Stored {
    /// Stamps a draft with the revision of the change that stores it.
    pub fn from_draft(key: Key, draft: &Draft, created: Revision, modified: Revision) -> Stored {
        let at = draft.revision_at.min(draft.json.len());
        let json = stamp(&draft.json[..at], modified, &draft.json[at..]);
        Stored::from_parts(key, json, created, modified, at)
    }

    /// An object that nobody has stored: it has no revision, so it can be sent back to be created.
    pub fn imagined(key: Key, draft: &Draft) -> Stored {
        let at = draft.revision_at.min(draft.json.len());
        Stored::from_parts(key, draft.json.clone(), Revision(0), Revision(0), at)
    }

    pub(crate) fn from_parts(
        key: Key,
        json: Bytes,
        created: Revision,
        modified: Revision,
        revision_at: usize,
    ) -> Stored {
        Stored {
            key,
            json,
            created,
            modified,
            revision_at,
            cache: Mutex::default(),
        }
    }

    /// What it takes: key, JSON and an allowance for the rest, as [`crate::Operation::bytes`] has it.
    pub(crate) fn cost_bytes(&self) -> u64 {
        (self.key.bytes() + self.json.len()) as u64
    }

    /// The same object, stamped with another revision.
    pub(crate) fn restamped(&self, modified: Revision) -> Stored {
        let at = self.revision_at.min(self.json.len());
        let rest = (at + stamp_length(self.modified)).min(self.json.len());
        let json = stamp(&self.json[..at], modified, &self.json[rest..]);
        Stored::from_parts(self.key.clone(), json, self.created, modified, at)
    }

    pub(crate) fn revision_at(&self) -> usize {
        self.revision_at
    }

    /// A decoded form of this object, made on first use and shared by all readers.
    ///
    /// The first type that is asked for takes the place; other types are computed at each call.
    pub fn cached<T: Send + Sync + 'static>(&self, make: impl FnOnce(&Stored) -> T) -> Arc<T> {
        let found = self.slot().clone();
        if let Some(found) = found {
            return found.downcast::<T>().unwrap_or_else(|_| Arc::new(make(self)));
        }
        let made = Arc::new(make(self));
        let kept = self.slot().get_or_insert_with(|| made.clone()).clone();
        kept.downcast::<T>().unwrap_or(made)
    }

    /// Lets go of the decoded form, which takes several times the memory of the JSON. Readers have to make it anew.
    pub(crate) fn forget_decoded(&self) {
        *self.slot() = None;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Decoded>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Stored) -> bool {
        self.key == other.key
            && self.json == other.json
            && self.created == other.created
            && self.modified == other.modified
    }
}

impl Eq for Stored {}

impl fmt::Debug for Stored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Stored({} {})",
            self.key,
            String::from_utf8_lossy(&self.json)
        )
    }
}

const STAMP_PREFIX: &[u8] = b"\"resourceVersion\":\"";
const STAMP_SUFFIX: &[u8] = b"\",";

fn stamp(before: &[u8], revision: Revision, after: &[u8]) -> Bytes {
    let mut json = BytesMut::with_capacity(before.len() + stamp_length(revision) + after.len());
    json.put_slice(before);
    json.put_slice(STAMP_PREFIX);
    json.put_slice(revision.to_string().as_bytes());
    json.put_slice(STAMP_SUFFIX);
    json.put_slice(after);
    json.freeze()
}

fn stamp_length(revision: Revision) -> usize {
    let digits = revision.0.checked_ilog10().unwrap_or(0) as usize + 1;
    STAMP_PREFIX.len() + digits + STAMP_SUFFIX.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ResourceName;

    fn stored(revision: u64) -> Stored {
        let key = Key::new(ResourceName::new("", "pods"), "default", "a");
        let draft = Draft {
            json: Bytes::from_static(br#"{"metadata":{"name":"a"}}"#),
            revision_at: 13,
        };
        Stored::from_draft(key, &draft, Revision(1), Revision(revision))
    }

    #[test]
    fn the_revision_is_the_first_field_of_the_metadata() {
        assert_eq!(
            stored(10).json,
            r#"{"metadata":{"resourceVersion":"10","name":"a"}}"#
        );
    }

    #[test]
    fn a_new_stamp_replaces_the_old_one_whatever_their_lengths() {
        assert_eq!(stored(9).restamped(Revision(100)), stored(100));
        assert_eq!(stored(100).restamped(Revision(9)), stored(9));
    }

    #[test]
    fn an_offset_outside_the_draft_does_not_panic() {
        let key = Key::new(ResourceName::new("", "pods"), "", "a");
        let draft = Draft {
            json: Bytes::from_static(b"{}"),
            revision_at: 99,
        };
        let object = Stored::from_draft(key, &draft, Revision(1), Revision(1));
        assert_eq!(object.restamped(Revision(2)).json, "{}\"resourceVersion\":\"2\",");
    }

    #[test]
    fn the_first_decoded_type_is_shared_and_others_are_computed() {
        let object = stored(1);
        let first = object.cached(|object| object.json.len());
        assert!(Arc::ptr_eq(&first, &object.cached(|_| 0_usize)));
        assert_eq!(*object.cached(|_| "other"), "other");
    }

    #[test]
    fn a_forgotten_form_is_made_anew() {
        let object = stored(1);
        let weak = Arc::downgrade(&object.cached(|_| 1));
        object.forget_decoded();
        assert!(weak.upgrade().is_none());
        assert_eq!(*object.cached(|_| 2), 2);
    }
}
