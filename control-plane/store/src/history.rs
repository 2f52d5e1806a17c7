//! The last changes of each resource, for watchers to follow.
//!
//! *Guarantees*: [`History::page`] gives every event after a revision, in order, or says that some are gone.
//! Never grows beyond its limits, whatever watchers do: they hold a revision, not a queue.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::key::{ResourceName, Revision};
use crate::object::Stored;
use crate::planted::{PlantedBug, is_planted};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was created.
    Added,
    /// It was replaced.
    Modified,
    /// It was removed.
    Deleted,
}

/// One change of one object. No two events share a revision.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub change: Change,
    /// The object after it; for a deletion its last state, stamped with the deletion's revision.
    pub object: Arc<Stored>,
    /// The object before it.
    pub previous: Option<Arc<Stored>>,
    /// When it happened.
    pub revision: Revision,
}

impl Event {
    /// What it costs to keep, once its decoded forms are forgotten: the object's bytes and an allowance for the rest. The previous state is not
    /// counted: it is nearly always the object of an earlier event.
    fn cost_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 256;
        self.object.json.len() + OVERHEAD_BYTES
    }

    fn forget_decoded(&self) {
        self.object.forget_decoded();
        if let Some(previous) = &self.previous {
            previous.forget_decoded();
        }
    }
}

/// Decoded forms are kept for as many of a resource's newest events: those that watchers who keep up still read.
const DECODED_EVENTS_MAX: usize = 64;

/// How much is kept, of each resource and in all. The newest event of each resource is kept whatever its size; it is
/// mostly an object that is stored anyway.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    /// Events of one resource.
    pub events_max: usize,
    /// Bytes of one resource's events.
    pub bytes_max: usize,
    /// Events of all resources. Beyond it the resource with the most bytes loses its oldest, so that one with many
    /// changes does not cost the others their history.
    pub total_events_max: usize,
    /// Bytes of all resources' events, likewise.
    pub total_bytes_max: usize,
}

impl Default for HistoryLimits {
    /// Minutes of a busy cluster's changes, in a few megabytes. In all, what eight such resources would take; there are
    /// some fifty, most of them quiet.
    fn default() -> HistoryLimits {
        HistoryLimits {
            events_max: 8192,
            bytes_max: 4 << 20,
            total_events_max: 65_536,
            total_bytes_max: 32 << 20,
        }
    }
}

/// The wanted events are no longer kept; the watcher has to list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes before revision {oldest} are no longer kept")]
pub struct TooOld {
    /// Watching can start at this revision or later.
    pub oldest: Revision,
}

/// Bytes of events that one page has, unless a single one is larger: a reader holds them for as long as it likes.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// Some events in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// The events, those of other namespaces left out.
    pub events: Vec<Arc<Event>>,
    /// Where the next page starts: everything up to here has been seen.
    pub revision: Revision,
    /// There are more events after this page.
    pub more: bool,
}

/// The bounded history of all resources.
#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    /// Nothing at or before this is kept of any resource.
    floor: Revision,
    resources: HashMap<ResourceName, Ring>,
    size: HistorySize,
}

/// How much a history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySize {
    /// Events.
    pub events: usize,
    /// What they cost to keep.
    pub bytes: usize,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Revision of the newest event that was dropped.
    dropped: Revision,
}

impl History {
    /// An empty history that starts just after `floor`.
    pub fn new(limits: HistoryLimits, floor: Revision) -> History {
        let skip = u64::from(is_planted(PlantedBug::SkipEventAtSnapshot));
        History {
            limits,
            floor: Revision(floor.0.saturating_sub(skip)),
            resources: HashMap::new(),
            size: HistorySize::default(),
        }
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        let resource = &event.object.key.resource;
        if !self.resources.contains_key(resource) {
            self.resources.insert(resource.clone(), Ring::default());
        }
        let Some(ring) = self.resources.get_mut(resource) else {
            return;
        };
        self.size.events += 1;
        self.size.bytes += event.cost_bytes();
        ring.push(event);
        while ring.events.len() > self.limits.events_max.max(1)
            || (ring.bytes > self.limits.bytes_max && ring.events.len() > 1)
        {
            ring.drop_oldest(&mut self.size);
        }
        while (self.size.events > self.limits.total_events_max
            || self.size.bytes > self.limits.total_bytes_max)
            && let Some(ring) = largest(&mut self.resources)
        {
            ring.drop_oldest(&mut self.size);
        }
    }

    /// Drops every event up to a revision. Who has seen a resource's last change may go on from there all the same.
    pub(crate) fn forget(&mut self, upto: Revision) {
        for ring in self.resources.values_mut() {
            while ring.events.front().is_some_and(|event| event.revision <= upto) {
                ring.drop_oldest(&mut self.size);
            }
        }
    }

    /// How much it holds.
    pub fn size(&self) -> HistorySize {
        self.size
    }

    /// The events of a resource after a revision, `events_max` at most. `now` is the store's revision.
    pub fn page(
        &self,
        resource: &ResourceName,
        namespace: Option<&str>,
        after: Revision,
        now: Revision,
        events_max: usize,
    ) -> Result<HistoryPage, TooOld> {
        let ring = self.resources.get(resource);
        let oldest = self.floor.max(ring.map_or(Revision(0), |ring| ring.dropped));
        if after < oldest {
            return Err(TooOld { oldest });
        }
        Ok(ring.map_or_else(
            || HistoryPage {
                events: Vec::new(),
                revision: now.max(after),
                more: false,
            },
            |ring| ring.page(namespace, after, now, events_max),
        ))
    }
}

/// The resource with the most bytes of those that have more than their newest event.
fn largest(resources: &mut HashMap<ResourceName, Ring>) -> Option<&mut Ring> {
    let rings = resources.iter_mut().filter(|(_, ring)| ring.events.len() > 1);
    // The name decides between equals: the order of a map of hashes differs from run to run.
    let largest = rings.max_by(|a, b| a.1.bytes.cmp(&b.1.bytes).then_with(|| a.0.cmp(b.0)));
    largest.map(|(_, ring)| ring)
}

impl Ring {
    fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.cost_bytes();
        self.events.push_back(event);
        if let Some(read) = self.events.iter().rev().nth(DECODED_EVENTS_MAX) {
            read.forget_decoded();
        }
    }

    fn drop_oldest(&mut self, total: &mut HistorySize) {
        if let Some(dropped) = self.events.pop_front() {
            let bytes = dropped.cost_bytes();
            self.bytes -= bytes;
            self.dropped = dropped.revision;
            total.events -= 1;
            total.bytes -= bytes;
        }
    }

    fn page(
        &self,
        namespace: Option<&str>,
        after: Revision,
        now: Revision,
        events_max: usize,
    ) -> HistoryPage {
        let start = self.events.partition_point(|event| event.revision <= after);
        let end = self.page_end(start, events_max);
        let events = self
            .events
            .range(start..end)
            .filter(|event| namespace.is_none_or(|wanted| *event.object.key.namespace == *wanted))
            .cloned()
            .collect();
        let more = end < self.events.len();
        let revision = if more {
            self.events[end - 1].revision
        } else {
            now.max(after)
        };
        HistoryPage {
            events,
            revision,
            more,
        }
    }

    fn page_end(&self, start: usize, events_max: usize) -> usize {
        let mut bytes = 0;
        let fitting = self.events.range(start..).take(events_max).take_while(|event| {
            let fits = bytes < PAGE_BYTES_MAX;
            bytes += event.cost_bytes();
            fits
        });
        start + fitting.count()
    }
}
