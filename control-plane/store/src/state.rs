//! The state machine: what a transaction does to the objects.

use std::sync::Arc;

use imbl::OrdMap;

use crate::history::{Change, Event, History, HistoryLimits, HistoryPage, TooOld};
use crate::key::{Key, ResourceName, Revision};
use crate::object::Stored;
use crate::snapshot::Snapshot;
use crate::transaction::{Operation, Outcome, Transaction};

/// The store of one replica: objects, revision, newest term and watch history.
#[derive(Debug)]
pub struct State {
    current: Snapshot,
    term: u64,
    history: History,
}

/// What applying a transaction did.
#[derive(Debug)]
pub struct Applied {
    /// The answer for the proposer.
    pub outcome: Outcome,
    /// The resources that have news for their watchers, each once.
    pub touched: Vec<ResourceName>,
}

impl State {
    /// A store as it was in `snapshot`, with the newest term applied until then. Its history starts there:
    /// watchers of anything older are told to list again.
    pub fn new(snapshot: Snapshot, term: u64, limits: HistoryLimits) -> State {
        let history = History::new(limits, snapshot.revision());
        State {
            current: snapshot,
            term,
            history,
        }
    }

    /// The objects now.
    pub fn snapshot(&self) -> &Snapshot {
        &self.current
    }

    /// The newest leader's term among the entries applied so far.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Takes note of the term of an entry that is being applied.
    pub fn observe_term(&mut self, term: u64) {
        self.term = self.term.max(term);
    }

    /// Events of a resource after a revision, see [`History::page`].
    pub fn events(
        &self,
        resource: &ResourceName,
        namespace: Option<&str>,
        after: Revision,
        events_max: usize,
    ) -> Result<HistoryPage, TooOld> {
        self.history
            .page(resource, namespace, after, self.current.revision, events_max)
    }

    /// Applies a transaction, whole or not at all.
    pub fn apply(&mut self, transaction: &Transaction) -> Applied {
        if transaction.fence.is_some_and(|fence| fence < self.term) {
            return Applied {
                outcome: Outcome::Fenced { term: self.term },
                touched: Vec::new(),
            };
        }
        let mut draft = Work {
            objects: self.current.objects.clone(),
            revision: self.current.revision,
            events: Vec::new(),
        };
        let mut objects = Vec::with_capacity(transaction.operations.len());
        for (index, operation) in transaction.operations.iter().enumerate() {
            let found = draft.objects.get(operation.key()).cloned();
            if !operation.require().holds(found.as_deref()) {
                let outcome = Outcome::Conflict {
                    operation: index,
                    found,
                };
                return Applied {
                    outcome,
                    touched: Vec::new(),
                };
            }
            objects.push(draft.carry_out(operation, found));
        }
        let touched = self.commit(draft);
        Applied {
            outcome: Outcome::Committed {
                revision: self.current.revision,
                objects,
            },
            touched,
        }
    }

    fn commit(&mut self, work: Work) -> Vec<ResourceName> {
        self.current = Snapshot {
            objects: work.objects,
            revision: work.revision,
        };
        let mut touched: Vec<ResourceName> = Vec::new();
        for event in work.events {
            let resource = &event.object.key.resource;
            if !touched.contains(resource) {
                touched.push(resource.clone());
            }
            self.history.push(Arc::new(event));
        }
        touched
    }
}

/// A transaction half done, on a copy that shares its structure with the state.
struct Work {
    objects: OrdMap<Key, Arc<Stored>>,
    revision: Revision,
    events: Vec<Event>,
}

impl Work {
    fn carry_out(&mut self, operation: &Operation, found: Option<Arc<Stored>>) -> Option<Arc<Stored>> {
        match operation {
            Operation::Check { .. } => found,
            Operation::Delete { key, .. } => found.map(|found| self.delete(key, found)),
            Operation::Put { key, draft, .. } => {
                self.revision = self.revision.next();
                let created = found.as_ref().map_or(self.revision, |found| found.created);
                // The key of the object that was there is taken over: its strings are shared already.
                let key = found
                    .as_ref()
                    .map_or_else(|| key.clone(), |found| found.key.clone());
                let object = Arc::new(Stored::from_draft(key, draft, created, self.revision));
                self.objects.insert(object.key.clone(), Arc::clone(&object));
                let change = if found.is_some() {
                    Change::Modified
                } else {
                    Change::Added
                };
                self.record(change, Arc::clone(&object), found);
                Some(object)
            }
        }
    }

    fn delete(&mut self, key: &Key, found: Arc<Stored>) -> Arc<Stored> {
        self.revision = self.revision.next();
        self.objects.remove(key);
        let last = Arc::new(found.restamped(self.revision));
        self.record(Change::Deleted, Arc::clone(&last), Some(found));
        last
    }

    fn record(&mut self, change: Change, object: Arc<Stored>, previous: Option<Arc<Stored>>) {
        self.events.push(Event {
            change,
            object,
            previous,
            revision: self.revision,
        });
    }
}
