//! The handle, its options, and reads.

use std::sync::Arc;

use flotilla_api::{FieldValidation, Kind, Object, Status};
use flotilla_raft::Replica;
use flotilla_store::{Key, ResourceName, Stored};
use tokio::sync::mpsc;

use crate::ServiceCidr;
use crate::events::{EventRecord, EventWriter};

/// Settings that admission needs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a pod stays bound to a node that is not ready or unreachable, unless it says otherwise.
    pub toleration_seconds: i64,
    /// Whether pods get a volume with a token of their service account, which must exist then.
    pub account_tokens: bool,
    /// Where services get their addresses from.
    pub service_cidr: ServiceCidr,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            toleration_seconds: 30,
            account_tokens: false,
            service_cidr: ServiceCidr::default(),
        }
    }
}

/// Which part of an object a write is about; the rest of the body is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Whole,
    /// The status only.
    Status,
    /// The replicas, seen as an autoscaling/v1 Scale.
    Scale,
    /// A part of the desired state that only the subresource of this name changes.
    Named(&'static str),
}

/// How a write is to be done.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Go through everything but the store.
    pub dry_run: bool,
    /// What to do about unknown and duplicate fields of a patched object.
    pub field_validation: FieldValidation,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            field_validation: FieldValidation::Ignore,
        }
    }
}

/// What a write left behind.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object's new state.
    pub object: Arc<Stored>,
    /// Warnings for the user, as decoding gave them.
    pub warnings: Vec<String>,
    /// Whether the object is new.
    pub created: bool,
}

/// The write path. A clone is cheap and shares everything but the fence.
#[derive(Clone)]
pub struct Resources {
    pub(crate) replica: Replica,
    pub(crate) options: Options,
    pub(crate) fence: Option<u64>,
    pub(crate) events: mpsc::Sender<EventRecord>,
}

impl Resources {
    /// The write path over `replica`, and the writer of its events, which must be run for events to be kept.
    pub fn new(replica: Replica, options: Options) -> (Self, EventWriter) {
        let (events, receiver) = EventWriter::channel();
        let resources = Self {
            replica,
            options,
            fence: None,
            events,
        };
        let writer = EventWriter::new(resources.clone(), receiver);
        (resources, writer)
    }

    /// The same, but every proposal is refused once another leader than that of `term` has taken over.
    #[must_use]
    pub fn fenced(&self, term: u64) -> Self {
        Self {
            fence: Some(term),
            ..self.clone()
        }
    }

    /// The term that every proposal is bound to.
    pub fn term(&self) -> Option<u64> {
        self.fence
    }

    /// Where services get their addresses from.
    pub fn service_cidr(&self) -> ServiceCidr {
        self.options.service_cidr
    }

    /// The store underneath.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// An object as it is now, on every replica (linearizable).
    pub async fn get(&self, kind: &'static Kind, namespace: &str, name: &str) -> Result<Arc<Stored>, Status> {
        let snapshot = self.read().await?;
        let found = snapshot.get(&key(kind, namespace, name));
        found.cloned().ok_or_else(|| Status::not_found(kind, name))
    }
}

/// Where an object of `kind` lives in the store.
pub(crate) fn key(kind: &Kind, namespace: &str, name: &str) -> Key {
    let namespace = if kind.namespaced { namespace } else { "" };
    Key::new(resource_name(kind), namespace, name)
}

pub(crate) fn resource_name(kind: &Kind) -> ResourceName {
    let (group, resource) = kind.resource_name();
    ResourceName::new(group, resource)
}

/// Where `object` lives in the store.
pub(crate) fn key_of(kind: &Kind, object: &dyn Object) -> Key {
    let meta = object.meta();
    key(
        kind,
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}
