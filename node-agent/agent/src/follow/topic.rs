//! One resource: what is known of it, and who is told.

use std::any::Any;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use flotilla_proto::node::follow_event::Kind;
use flotilla_report::report;
use tokio::sync::watch;

use super::cache::{Cache, Place};
use super::{Change, Followed};

type Handler<T> = Box<dyn FnMut(&Change<T>) + Send + Sync>;

/// A [`Topic`] without its type.
pub(super) trait AnyTopic: Send + Sync {
    fn as_any(&mut self) -> &mut dyn Any;
    /// Group and plural.
    fn resource(&self) -> (&'static str, &'static str);
    /// Everything up to here is known; 0 when nothing is.
    fn revision(&self) -> u64;
    fn restore(&mut self);
    fn take(&mut self, event: Kind);
    /// Whether it is of any use to follow this; none: always.
    fn gate(&self) -> Option<watch::Receiver<bool>>;
    /// The stream broke: a list that was under way counts for nothing.
    fn interrupted(&mut self);
}

/// All that is known of one resource. Objects themselves are on disk and with the handlers, not here.
pub(super) struct Topic<T> {
    handlers: Vec<Handler<T>>,
    cache: Cache,
    /// Objects that a list that is under way has not named yet.
    unlisted: Option<HashSet<Place>>,
    gate: Option<watch::Receiver<bool>>,
}

impl<T: Followed> Topic<T> {
    pub(super) fn new(folder: &Path) -> Self {
        let name = match T::GROUP {
            "" => T::URL_PATH_SEGMENT.to_owned(),
            group => format!("{}.{group}", T::URL_PATH_SEGMENT),
        };
        Self {
            handlers: Vec::new(),
            cache: match (T::GROUP, T::KIND) {
                ("", "Secret") => Cache::without_traces(folder.join(name)),
                _ => Cache::new(folder.join(name)),
            },
            unlisted: None,
            gate: None,
        }
    }

    /// Follows nothing before the gate opens.
    pub(super) fn wait_for(&mut self, gate: Option<watch::Receiver<bool>>) {
        self.gate = gate;
    }

    pub(super) fn add(&mut self, handler: impl FnMut(&Change<T>) + Send + Sync + 'static) {
        self.handlers.push(Box::new(handler));
    }

    fn tell(&mut self, change: &Change<T>) {
        self.handlers.iter_mut().for_each(|handler| handler(change));
    }

    fn object(&mut self, json: &[u8]) {
        let Some((place, revision, object)) = decode::<T>(json) else {
            return;
        };
        let listed = match &mut self.unlisted {
            Some(unlisted) => {
                unlisted.remove(&place);
                true
            }
            None => false,
        };
        let is_news = match self.cache.revision_of(&place) {
            // Lists tell what is; changes may come twice when a stream was taken up again.
            Some(known) => known != revision && (listed || known < revision),
            None => true,
        };
        if is_news {
            self.cache.put(place, revision, json);
            self.tell(&Change::Applied(Arc::new(object)));
        }
    }

    fn gone(&mut self, place: Place, revision: u64) {
        if self
            .cache
            .revision_of(&place)
            .is_some_and(|known| known <= revision)
        {
            self.remove(place);
        }
    }

    fn remove(&mut self, place: Place) {
        self.cache.remove(&place);
        let Place { namespace, name } = place;
        self.tell(&Change::Gone {
            namespace: namespace.into(),
            name: name.into(),
        });
    }

    fn bookmark(&mut self, revision: u64) {
        let is_first = self.cache.revision() == 0;
        let unlisted = self.unlisted.take();
        let ends_list = unlisted.is_some();
        for place in unlisted.into_iter().flatten() {
            self.remove(place);
        }
        self.cache.complete(revision);
        if ends_list || is_first {
            self.tell(&Change::Synced);
        }
    }
}

impl<T: Followed> AnyTopic for Topic<T> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn resource(&self) -> (&'static str, &'static str) {
        (T::GROUP, T::URL_PATH_SEGMENT)
    }

    fn revision(&self) -> u64 {
        self.cache.revision()
    }

    fn gate(&self) -> Option<watch::Receiver<bool>> {
        self.gate.clone()
    }

    fn restore(&mut self) {
        // Nobody follows it, so what is on disk may be anything's age.
        if self.gate.as_ref().is_some_and(|gate| !*gate.borrow()) {
            return self.cache.begin_anew();
        }
        for json in self.cache.open() {
            if let Some((_, _, object)) = decode::<T>(&json) {
                self.tell(&Change::Applied(Arc::new(object)));
            }
        }
        if self.cache.revision() > 0 {
            self.tell(&Change::Synced);
        }
    }

    fn take(&mut self, event: Kind) {
        match event {
            Kind::List(_) => self.unlisted = Some(self.cache.places().cloned().collect()),
            Kind::Object(object) => self.object(&object.object_json),
            Kind::Gone(gone) => self.gone(Place::new(&gone.namespace, &gone.name), gone.revision),
            Kind::Bookmark(bookmark) => self.bookmark(bookmark.revision),
        }
    }

    fn interrupted(&mut self) {
        self.unlisted = None;
    }
}

/// Place, revision and content. One that cannot be read is left out: it may come from a newer server.
fn decode<T: Followed>(json: &[u8]) -> Option<(Place, u64, T)> {
    let object: T = match serde_json::from_slice(json) {
        Ok(object) => object,
        Err(error) => {
            tracing::warn!(
                kind = T::KIND,
                error = report(&error),
                "a followed object cannot be read"
            );
            return None;
        }
    };
    let meta = object.metadata();
    let place = Place::new(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    );
    let revision = meta
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok());
    Some((place, revision.unwrap_or(0), object))
}
