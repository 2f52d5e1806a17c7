//! Follows the metadata of all objects of all kinds: who owns whom, and what is being deleted.
//!
//! Decodes metadata only. *Guarantees*: every object that is there and every removal is told, in the order of the
//! kind's revisions; changes in between may be told as one.

use std::collections::HashMap;
use std::sync::Arc;

use flotilla_api::{Kind, registry};
use flotilla_raft::{Replica, WatchError};
use flotilla_report::report;
use flotilla_store::{Change, Key, ResourceName, Revision, Stored};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;

use crate::runner::Runner;

/// What matters of an object's metadata.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    #[serde(default)]
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) owner_references: Vec<OwnerReference>,
    #[serde(default)]
    pub(crate) finalizers: Vec<String>,
    pub(crate) deletion_timestamp: Option<Timestamp>,
}

/// Reads the metadata of a stored object.
pub(crate) fn meta_of(stored: &Stored) -> Option<Meta> {
    #[derive(Deserialize)]
    struct Partial {
        metadata: Meta,
    }
    serde_json::from_slice::<Partial>(&stored.json)
        .ok()
        .map(|partial| partial.metadata)
}

/// What was seen of an object.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// It is there.
    Present {
        /// Its kind.
        kind: &'static Kind,
        /// Where it is.
        key: Key,
        /// Its metadata.
        meta: Meta,
    },
    /// It is gone.
    Gone {
        /// Where it was.
        key: Key,
        /// Its uid.
        uid: String,
    },
}

/// Told of everything that is seen; must not block.
pub(crate) type Listener = Arc<dyn Fn(Seen) + Send + Sync>;

/// The kinds that take part in ownership. Events do not: there are many, and nobody owns them.
pub(crate) fn followed() -> impl Iterator<Item = &'static Kind> {
    registry()
        .all()
        .filter(|kind| kind.storage().is_none() && !kind.computed && kind.kind != "Event")
}

/// Where a kind's objects are in the store.
pub(crate) fn resource_name(kind: &Kind) -> ResourceName {
    let (group, resource) = kind.resource_name();
    ResourceName::new(group, resource)
}

/// Starts to follow all kinds.
pub(crate) fn start(replica: &Replica, runner: &Runner, listener: &Listener) {
    for kind in followed() {
        let mut follower = Follower {
            kind,
            resource: resource_name(kind),
            known: HashMap::new(),
            listener: Arc::clone(listener),
        };
        let (replica, shutdown) = (replica.clone(), runner.shutdown.clone());
        runner.tracker.spawn(async move {
            // What was followed is of no use after shutdown.
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follower.follow(&replica) => {}
            }
        });
    }
}

struct Follower {
    kind: &'static Kind,
    resource: ResourceName,
    known: HashMap<Key, String>,
    listener: Listener,
}

impl Follower {
    async fn follow(&mut self, replica: &Replica) {
        loop {
            let snapshot = replica.snapshot();
            let start = snapshot.revision();
            let mut gone = self.known.clone();
            let resource = self.resource.clone();
            for stored in snapshot.list(&resource, None, None) {
                gone.remove(&stored.key);
                self.present(stored);
            }
            gone.into_iter().for_each(|(key, uid)| self.gone(key, uid));
            drop(snapshot);
            match self.follow_from(replica, start).await {
                WatchError::Expired { .. } => {}
                error => {
                    tracing::debug!(error = report(&error), resource = %self.resource, "metadata is no longer followed");
                    return;
                }
            }
        }
    }

    async fn follow_from(&mut self, replica: &Replica, start: Revision) -> WatchError {
        let mut watch = match replica.watch(self.resource.clone(), None, start) {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        loop {
            let batch = match watch.next().await {
                Ok(batch) => batch,
                Err(error) => return error,
            };
            for event in &batch.events {
                match event.change {
                    Change::Added | Change::Modified => self.present(&event.object),
                    Change::Deleted => {
                        let uid = self.known.get(&event.object.key).cloned().unwrap_or_default();
                        self.gone(event.object.key.clone(), uid);
                    }
                }
            }
        }
    }

    fn present(&mut self, stored: &Stored) {
        let Some(meta) = meta_of(stored) else { return };
        let former = self.known.insert(stored.key.clone(), meta.uid.clone());
        if let Some(uid) = former.filter(|uid| *uid != meta.uid) {
            (self.listener)(Seen::Gone {
                key: stored.key.clone(),
                uid,
            });
        }
        (self.listener)(Seen::Present {
            kind: self.kind,
            key: stored.key.clone(),
            meta,
        });
    }

    fn gone(&mut self, key: Key, uid: String) {
        self.known.remove(&key);
        (self.listener)(Seen::Gone { key, uid });
    }
}
