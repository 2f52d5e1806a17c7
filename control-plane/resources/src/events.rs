//! Events about objects, for people to read.
//!
//! Recording never waits and never fails: records go through a bounded queue to one writer, which stores new events
//! in batches and counts repeats up.

use std::collections::HashMap;

use flotilla_api::{Status, registry};
use flotilla_report::report;
use flotilla_store::{Operation, Outcome, Require};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    Part, Resources,
    create::now,
    propose::{fenced, store_draft},
    resources::key,
};

/// Enough for a burst of pod starts on fifty nodes; beyond it events are dropped and that is logged.
const QUEUE_MAX: usize = 4096;
/// Events that one proposal carries at most.
const BATCH_MAX: usize = 128;
/// Events whose repeats are counted up instead of stored anew.
const REMEMBERED_MAX: usize = 4096;

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// What is to be expected.
    Normal,
    /// What somebody may have to look at.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// The object.
    pub regarding: ObjectReference,
    /// How serious it is.
    pub type_: EventType,
    /// A word in CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Who says so: `deployment-controller`, `default-scheduler`, `kubelet`.
    pub component: String,
    /// On which node, if on one.
    pub host: Option<String>,
}

impl Resources {
    /// Takes an event down. Returns at once; when the queue is full the event is dropped, which is logged.
    pub fn record_event(&self, record: EventRecord) {
        if let Err(error) = self.events.try_send(record) {
            tracing::warn!(error = report(&error), "an event was dropped");
        }
    }
}

/// What makes two records the same event, but for the time.
#[derive(PartialEq, Eq, Hash)]
struct Sameness {
    uid: String,
    field_path: String,
    type_: EventType,
    reason: String,
    message: String,
    component: String,
}

impl Sameness {
    fn of(record: &EventRecord) -> Self {
        Self {
            uid: record.regarding.uid.clone().unwrap_or_default(),
            field_path: record.regarding.field_path.clone().unwrap_or_default(),
            type_: record.type_,
            reason: record.reason.clone(),
            message: record.message.clone(),
            component: record.component.clone(),
        }
    }
}

/// Stores what was recorded. Run one beside the [`Resources`] it came with.
pub struct EventWriter {
    resources: Resources,
    records: mpsc::Receiver<EventRecord>,
    /// Namespace and name of events that may be counted up.
    remembered: HashMap<Sameness, (String, String)>,
    sequence: u64,
}

impl EventWriter {
    pub(crate) fn channel() -> (mpsc::Sender<EventRecord>, mpsc::Receiver<EventRecord>) {
        mpsc::channel(QUEUE_MAX)
    }

    pub(crate) fn new(resources: Resources, records: mpsc::Receiver<EventRecord>) -> Self {
        let sequence = jiff::Timestamp::now().as_nanosecond().unsigned_abs() as u64;
        Self {
            resources,
            records,
            remembered: HashMap::new(),
            sequence,
        }
    }

    /// Writes events until shutdown; what is queued then is lost, as events may be.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            batch.clear();
            // Dropping either arm loses at most records that were not taken out yet.
            tokio::select! {
                () = shutdown.cancelled() => return,
                taken = self.records.recv_many(&mut batch, BATCH_MAX) => if taken == 0 { return },
            }
            if let Err(status) = self.write(&batch).await {
                tracing::warn!(
                    error = report(&status),
                    events = batch.len(),
                    "events could not be stored"
                );
            }
        }
    }

    async fn write(&mut self, batch: &[EventRecord]) -> Result<(), Status> {
        let mut fresh = Vec::new();
        for record in batch {
            let sameness = Sameness::of(record);
            match self.remembered.get(&sameness).cloned() {
                Some((namespace, name)) if self.count_up(&namespace, &name).await? => {}
                _ => {
                    let event = self.event(record);
                    self.remember(sameness, &event);
                    fresh.push(event);
                }
            }
        }
        self.store(&fresh).await
    }

    async fn store(&self, events: &[Event]) -> Result<(), Status> {
        if events.is_empty() {
            return Ok(());
        }
        let kind = registry().of::<Event>();
        let operations = events.iter().map(|event| Operation::Put {
            key: key(
                kind,
                event.metadata.namespace.as_deref().unwrap_or_default(),
                event.metadata.name.as_deref().unwrap_or_default(),
            ),
            draft: store_draft(event),
            require: Require::Anything,
        });
        match self.resources.propose(operations.collect()).await? {
            Outcome::Fenced { term } => Err(fenced(term)),
            Outcome::Committed { .. } | Outcome::Conflict { .. } => Ok(()),
        }
    }

    /// Whether the event is still there and was counted up.
    async fn count_up(&self, namespace: &str, name: &str) -> Result<bool, Status> {
        let changed = self
            .resources
            .modify::<Event>(namespace, name, Part::Whole, |event| {
                event.count = Some(event.count.unwrap_or(1) + 1);
                event.last_timestamp = Some(now());
                true
            });
        Ok(changed.await?.is_some())
    }

    fn remember(&mut self, sameness: Sameness, event: &Event) {
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        let meta = &event.metadata;
        let place = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        self.remembered.insert(sameness, place);
    }

    fn event(&mut self, record: &EventRecord) -> Event {
        self.sequence += 1;
        let regarding = &record.regarding;
        let namespace = regarding
            .namespace
            .clone()
            .filter(|namespace| !namespace.is_empty());
        let name = format!(
            "{}.{:x}",
            regarding.name.as_deref().unwrap_or("unknown"),
            self.sequence
        );
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
                uid: Some(uuid::Uuid::new_v4().to_string()),
                creation_timestamp: Some(now()),
                ..ObjectMeta::default()
            },
            involved_object: regarding.clone(),
            type_: Some(record.type_.as_str().to_owned()),
            reason: Some(record.reason.clone()),
            message: Some(record.message.clone()),
            source: Some(EventSource {
                component: Some(record.component.clone()),
                host: record.host.clone(),
            }),
            reporting_component: Some(record.component.clone()),
            reporting_instance: Some(record.host.clone().unwrap_or_default()),
            count: Some(1),
            first_timestamp: Some(now()),
            last_timestamp: Some(now()),
            ..Event::default()
        }
    }
}
