//! What matters of all objects of a kind, in memory, for many readers.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Change, Followed};

type Entries<S> = BTreeMap<(String, String), Arc<S>>;

/// The newest state of every object, or what was kept of it. A clone shares it.
#[derive(Debug)]
pub(crate) struct Mirror<S> {
    entries: Arc<RwLock<Entries<S>>>,
}

impl<S> Clone for Mirror<S> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
        }
    }
}

impl<S> Default for Mirror<S> {
    fn default() -> Self {
        Self {
            entries: Arc::default(),
        }
    }
}

impl<S> Mirror<S> {
    pub(super) fn take<T: Followed>(&self, change: &Change<T>, keep: impl Fn(&Arc<T>) -> Option<S>) {
        let (place, kept) = match change {
            Change::Applied(object) => {
                let meta = object.metadata();
                let name = meta.name.clone().unwrap_or_default();
                ((meta.namespace.clone().unwrap_or_default(), name), keep(object))
            }
            Change::Gone { namespace, name } => ((namespace.clone(), name.clone()), None),
            Change::Synced => return,
        };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        match kept {
            Some(kept) => drop(entries.insert(place, Arc::new(kept))),
            None => drop(entries.remove(&place)),
        }
    }

    /// One entry; the namespace is empty outside of namespaces.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<S>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The entries of a namespace, by name.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<S>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .range((namespace.to_owned(), String::new())..)
            .take_while(|((found, _), _)| found == namespace)
            .map(|(_, entry)| entry.clone())
            .collect()
    }
}
