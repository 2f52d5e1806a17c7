//! All objects at one moment.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::key::{Key, ResourceName, Revision};
use crate::object::Stored;

/// The store at one revision. A clone is one pointer and never stops writers.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) objects: OrdMap<Key, Arc<Stored>>,
    pub(crate) revision: Revision,
}

impl Snapshot {
    /// The moment that this shows.
    pub fn revision(&self) -> Revision {
        self.revision
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
            .map(|(_, object)| object)
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

fn start_key(resource: &ResourceName, (namespace, name): (&str, &str)) -> Key {
    Key::new(resource.clone(), namespace, name)
}

fn belongs(key: &Key, resource: &ResourceName, namespace: Option<&str>) -> bool {
    key.resource == *resource && namespace.is_none_or(|namespace| *key.namespace == *namespace)
}
