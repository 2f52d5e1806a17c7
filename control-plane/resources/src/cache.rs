//! A typed, watched copy of all objects of one kind.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use flotilla_api::registry;
use flotilla_raft::{Replica, WatchError};
use flotilla_report::report;
use flotilla_store::{Change, Event, ResourceName, Revision, Stored};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    resources::resource_name,
    typed::{TypedObject, decoded},
};

/// A change that a cache has seen.
#[derive(Clone, Debug)]
pub enum CacheEvent<T> {
    /// The object is new, or new to the one who listens.
    Added(Arc<T>),
    /// The object changed.
    Modified {
        /// Its state before.
        old: Arc<T>,
        /// Its state now.
        new: Arc<T>,
    },
    /// The object is gone; its last state.
    Deleted(Arc<T>),
}

impl<T> CacheEvent<T> {
    /// The object's newest state.
    pub fn object(&self) -> &Arc<T> {
        match self {
            CacheEvent::Added(object)
            | CacheEvent::Modified { new: object, .. }
            | CacheEvent::Deleted(object) => object,
        }
    }
}

type Place = (Arc<str>, Arc<str>);
type Handler<T> = Box<dyn Fn(&CacheEvent<T>) + Send + Sync>;

/// All objects of kind `T`, kept up to date from this replica's own state. A clone shares the content.
///
/// *Guarantees*: handlers see every object and every removal; changes in between may be seen as one.
pub struct Cache<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

struct Inner<T> {
    resource: ResourceName,
    objects: RwLock<BTreeMap<Place, Arc<T>>>,
    /// Held while events are handed out, so that a new listener misses none and sees none twice.
    handlers: Mutex<Vec<Handler<T>>>,
    revision: watch::Sender<Option<Revision>>,
}

impl<T: TypedObject> Cache<T> {
    /// Starts to follow the objects; ends with `shutdown`.
    pub fn start(replica: &Replica, tracker: &TaskTracker, shutdown: &CancellationToken) -> Self {
        let inner = Arc::new(Inner {
            resource: resource_name(registry().of::<T>()),
            objects: RwLock::default(),
            handlers: Mutex::default(),
            revision: watch::Sender::new(None),
        });
        let (follower, replica, shutdown) = (inner.clone(), replica.clone(), shutdown.clone());
        tracker.spawn(async move {
            // Dropping the follower between two batches is harmless: nobody relies on it after shutdown.
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follower.follow(&replica) => {}
            }
        });
        Self { inner }
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let place = (Arc::from(namespace), Arc::from(name));
        self.inner
            .objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&place)
            .cloned()
    }

    /// All objects, or those of one namespace, by name.
    pub fn list(&self, namespace: Option<&str>) -> Vec<Arc<T>> {
        let objects = self.inner.objects.read().unwrap_or_else(PoisonError::into_inner);
        let Some(namespace) = namespace else {
            return objects.values().cloned().collect();
        };
        let start: Place = (Arc::from(namespace), Arc::from(""));
        objects
            .range((Bound::Included(start), Bound::Unbounded))
            .take_while(|((found, _), _)| **found == *namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Calls `handler` for every object that is there, as added, and then for every change, in order. The handler
    /// must not block and must not use the cache's own `subscribe`.
    pub fn subscribe(&self, handler: impl Fn(&CacheEvent<T>) + Send + Sync + 'static) {
        let mut handlers = self.inner.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        for object in self.list(None) {
            handler(&CacheEvent::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Waits until the cache holds what the store held when it started.
    pub async fn synced(&self) {
        let mut revision = self.inner.revision.subscribe();
        // The sender lives as long as this cache.
        let _ = revision.wait_for(Option::is_some).await;
    }

    /// How far the cache has followed; `None` before it is synced.
    pub fn revision(&self) -> watch::Receiver<Option<Revision>> {
        self.inner.revision.subscribe()
    }
}

impl<T: TypedObject> Inner<T> {
    async fn follow(&self, replica: &Replica) {
        loop {
            let snapshot = replica.snapshot();
            let start = snapshot.revision();
            self.replace(snapshot.list(&self.resource, None, None));
            self.revision.send_replace(Some(start));
            drop(snapshot);
            match self.follow_from(replica, start).await {
                WatchError::Expired { .. } => {
                    tracing::info!(resource = %self.resource, "a cache fell behind and lists again");
                }
                error => {
                    tracing::debug!(error = report(&error), resource = %self.resource, "a cache stops");
                    return;
                }
            }
        }
    }

    async fn follow_from(&self, replica: &Replica, start: Revision) -> WatchError {
        let mut watch = match replica.watch(self.resource.clone(), None, start) {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        loop {
            match watch.next().await {
                Ok(batch) => {
                    for event in &batch.events {
                        self.take(event);
                    }
                    self.revision.send_replace(Some(batch.revision));
                }
                Err(error) => return error,
            }
        }
    }

    fn take(&self, event: &Event) {
        let place = place_of(&event.object);
        match event.change {
            Change::Added | Change::Modified => {
                if let Some(object) = decoded(&event.object) {
                    self.put(place, object);
                }
            }
            Change::Deleted => self.remove(&place, decoded(&event.object)),
        }
    }

    fn put(&self, place: Place, object: Arc<T>) {
        let handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self
            .objects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place, object.clone());
        let event = match old {
            None => CacheEvent::Added(object),
            Some(old) => CacheEvent::Modified { old, new: object },
        };
        handlers.iter().for_each(|handler| handler(&event));
    }

    fn remove(&self, place: &Place, last: Option<Arc<T>>) {
        let handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self
            .objects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(place);
        if let Some(object) = last.filter(|_| removed.is_some()).or(removed) {
            let event = CacheEvent::Deleted(object);
            handlers.iter().for_each(|handler| handler(&event));
        }
    }

    /// Makes the content equal to a listing, telling the differences.
    fn replace<'a>(&self, listed: impl Iterator<Item = &'a Arc<Stored>>) {
        let mut gone: BTreeMap<Place, Arc<T>> = self
            .objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for stored in listed {
            let place = place_of(stored);
            let known = gone.remove(&place);
            let Some(object) = decoded::<T>(stored) else {
                continue;
            };
            let version = |object: &T| object.metadata().resource_version.clone();
            if known.is_none_or(|known| version(&known) != version(&object)) {
                self.put(place, object);
            }
        }
        for place in gone.keys() {
            self.remove(place, None);
        }
    }
}

fn place_of(stored: &Stored) -> Place {
    (stored.key.namespace.clone(), stored.key.name.clone())
}
