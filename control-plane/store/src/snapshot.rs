//! All objects at one moment.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use imbl::OrdSet;

use crate::key::{Key, ResourceName, Revision};
use crate::object::Stored;
use crate::transaction::{Operation, Transaction};

/// The store at one revision. A clone is one pointer and never stops writers.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) objects: Objects,
    pub(crate) revision: Revision,
    /// Bytes of keys and objects.
    pub(crate) bytes: u64,
}

/// What a transaction adds to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Bytes of keys and objects; negative when it makes room.
    pub bytes: i64,
    /// Whether there is a new object among them.
    pub creates: bool,
}

impl Snapshot {
    /// The moment that this shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The same objects at a later moment.
    #[must_use]
    pub fn at_revision(&self, revision: Revision) -> Snapshot {
        Snapshot {
            revision,
            ..self.clone()
        }
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.objects.get(key)
    }

    /// Objects of a resource (and namespace) in key order, starting after `(namespace, name)`.
    pub fn list<'a>(
        &'a self,
        resource: &'a ResourceName,
        namespace: Option<&'a str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &'a Arc<Stored>> + 'a {
        let first = (namespace.unwrap_or_default(), "");
        let start = match after {
            Some(after) if after >= first => Bound::Excluded(start_key(resource, after)),
            _ => Bound::Included(start_key(resource, first)),
        };
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |object| belongs(&object.key, resource, namespace))
    }

    /// How many objects a resource has (in one namespace).
    pub fn count(&self, resource: &ResourceName, namespace: Option<&str>) -> usize {
        self.list(resource, namespace, None).count()
    }

    /// All objects in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.objects.values()
    }

    /// How many objects there are in all.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Bytes of all keys and objects; what they take on a disk, nearly.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a transaction would add, were it to be applied to this.
    pub fn growth(&self, transaction: &Transaction) -> Growth {
        let mut growth = Growth::default();
        for operation in &transaction.operations {
            let found = self.objects.get(operation.key());
            let before = found.map_or(0, |found| found.cost_bytes());
            let after = match operation {
                Operation::Put { .. } => operation.bytes() as u64,
                Operation::Delete { .. } => 0,
                Operation::Check { .. } => before,
            };
            growth.creates |= found.is_none() && after > 0;
            growth.bytes += after.cast_signed() - before.cast_signed();
        }
        growth
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// Objects in key order. One pointer each, which finds the key in the object: every change copies some nodes of the
/// tree, and a copy counts a reference for each pointer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects(OrdSet<ByKey>);

impl Objects {
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.0.get(key).map(|found| &found.0)
    }

    /// Puts an object in the place of the one with its key, if there is one.
    pub(crate) fn insert(&mut self, object: Arc<Stored>) {
        self.0.insert(ByKey(object));
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        self.0.remove(key);
    }

    fn range(&self, range: impl RangeBounds<Key>) -> impl Iterator<Item = &Arc<Stored>> {
        self.0.range(range).map(|found| &found.0)
    }

    fn values(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.0.iter().map(|found| &found.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An object that is compared by its key alone.
#[derive(Clone, Debug)]
struct ByKey(Arc<Stored>);

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &ByKey) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &ByKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &ByKey) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

fn start_key(resource: &ResourceName, (namespace, name): (&str, &str)) -> Key {
    Key::new(resource.clone(), namespace, name)
}

fn belongs(key: &Key, resource: &ResourceName, namespace: Option<&str>) -> bool {
    key.resource == *resource && namespace.is_none_or(|namespace| *key.namespace == *namespace)
}
