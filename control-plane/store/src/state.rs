//! The state machine: what a transaction does to the objects.

use std::sync::Arc;

use crate::history::{Change, Event, History, HistoryLimits, HistoryPage, HistorySize, TooOld};
use crate::key::{Key, ResourceName, Revision};
use crate::object::Stored;
use crate::snapshot::{Objects, Snapshot};
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

    /// Drops the events up to a revision, which somebody with a clock calls old. No replica's objects or answers to
    /// transactions depend on it: watchers of older moments are told to list again, on each replica at its own time.
    pub fn forget_events(&mut self, upto: Revision) {
        self.history.forget(upto);
    }

    /// How much watch history is kept.
    pub fn history_size(&self) -> HistorySize {
        self.history.size()
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
            bytes: self.current.bytes,
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
            bytes: work.bytes,
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
    objects: Objects,
    revision: Revision,
    bytes: u64,
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
                self.bytes += object.cost_bytes();
                self.bytes -= found.as_ref().map_or(0, |found| found.cost_bytes());
                self.objects.insert(Arc::clone(&object));
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
        self.bytes -= found.cost_bytes();
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

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use bytes::Bytes;

    use super::*;
    use crate::object::Draft;
    use crate::snapshot::Growth;
    use crate::transaction::Require;

    fn state() -> State {
        State::new(Snapshot::default(), 0, HistoryLimits::default())
    }

    fn key(path: &str) -> Key {
        let mut parts = path.rsplit('/');
        let (name, namespace) = (parts.next().unwrap(), parts.next().unwrap_or(""));
        let resource = parts.next().unwrap_or("pods");
        Key::new(ResourceName::new("", resource), namespace, name)
    }

    fn put(path: &str, value: &str, require: Require) -> Operation {
        let json = Bytes::from(format!(r#"{{"metadata":{{"v":"{value}"}}}}"#));
        Operation::Put {
            key: key(path),
            draft: Draft {
                json,
                revision_at: 13,
            },
            require,
        }
    }

    fn delete(path: &str, require: Require) -> Operation {
        Operation::Delete {
            key: key(path),
            require,
        }
    }

    fn check_that(path: &str, require: Require) -> Operation {
        Operation::Check {
            key: key(path),
            require,
        }
    }

    /// Applies a transaction and says what came of it.
    fn apply(state: &mut State, operations: Vec<Operation>) -> String {
        let applied = state.apply(&Transaction {
            operations,
            fence: None,
        });
        match applied.outcome {
            Outcome::Committed { revision, objects } => {
                let mut text = format!("at {revision}:");
                for object in objects {
                    match object {
                        Some(object) => write!(
                            text,
                            " {}@{}+{}",
                            object.key.name, object.created, object.modified
                        )
                        .unwrap(),
                        None => text.push_str(" -"),
                    }
                }
                text
            }
            Outcome::Conflict { operation, found } => {
                let found = found.map_or_else(|| "none".to_owned(), |object| object.modified.to_string());
                format!("conflict at operation {operation}, found {found}")
            }
            Outcome::Fenced { term } => format!("fenced by {term}"),
        }
    }

    fn names(state: &State, resource: &str, namespace: Option<&str>, after: Option<(&str, &str)>) -> String {
        let resource = ResourceName::new("", resource);
        let found: Vec<String> = state
            .snapshot()
            .list(&resource, namespace, after)
            .map(|object| format!("{}/{}", object.key.namespace, object.key.name))
            .collect();
        found.join(" ")
    }

    fn events(state: &State, after: u64) -> String {
        let resource = ResourceName::new("", "pods");
        match state.events(&resource, None, Revision(after), 100) {
            Ok(page) => {
                let events: Vec<String> = page
                    .events
                    .iter()
                    .map(|event| format!("{:?} {}@{}", event.change, event.object.key.name, event.revision))
                    .collect();
                format!("{} to {}", events.join(", "), page.revision)
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_change_takes_the_next_revision() {
        let mut state = state();
        let both = vec![put("a", "1", Require::Absent), put("b", "1", Require::Absent)];
        assert_eq!(apply(&mut state, both), "at 2: a@1+1 b@2+2");
        assert_eq!(
            apply(&mut state, vec![put("a", "2", Require::Anything)]),
            "at 3: a@1+3"
        );
        assert_eq!(
            apply(&mut state, vec![delete("b", Require::Present)]),
            "at 4: b@2+4"
        );
        assert_eq!(apply(&mut state, vec![delete("b", Require::Anything)]), "at 4: -");
        assert_eq!(
            apply(&mut state, vec![check_that("a", Require::Modified(Revision(3)))]),
            "at 4: a@1+3"
        );
    }

    #[test]
    fn a_failed_demand_undoes_the_whole_transaction() {
        let mut state = state();
        apply(&mut state, vec![put("a", "1", Require::Absent)]);
        let operations = vec![
            put("b", "1", Require::Absent),
            put("a", "2", Require::Modified(Revision(9))),
        ];
        assert_eq!(apply(&mut state, operations), "conflict at operation 1, found 1");
        assert_eq!(names(&state, "pods", None, None), "/a");
        assert_eq!(events(&state, 0), "Added a@1 to 1");
        let absent = vec![delete("b", Require::Present)];
        assert_eq!(apply(&mut state, absent), "conflict at operation 0, found none");
    }

    #[test]
    fn an_operation_sees_those_before_it() {
        let mut state = state();
        let operations = vec![
            put("a", "1", Require::Absent),
            put("a", "2", Require::Modified(Revision(1))),
            delete("a", Require::Modified(Revision(2))),
            check_that("a", Require::Absent),
        ];
        assert_eq!(apply(&mut state, operations), "at 3: a@1+1 a@1+2 a@1+3 -");
        assert_eq!(events(&state, 0), "Added a@1, Modified a@2, Deleted a@3 to 3");
    }

    #[test]
    fn a_deleted_object_carries_the_revision_of_its_deletion_and_its_last_state() {
        let mut state = state();
        apply(&mut state, vec![put("a", "1", Require::Absent)]);
        apply(&mut state, vec![delete("a", Require::Present)]);
        let page = state.events(&key("a").resource, None, Revision(1), 10).unwrap();
        assert_eq!(
            page.events[0].object.json,
            r#"{"metadata":{"resourceVersion":"2","v":"1"}}"#
        );
        let previous = page.events[0].previous.as_ref().unwrap();
        assert_eq!(previous.json, r#"{"metadata":{"resourceVersion":"1","v":"1"}}"#);
    }

    #[test]
    fn an_older_leader_is_refused_and_a_snapshot_is_not_changed_by_later_writes() {
        let mut state = state();
        state.observe_term(3);
        let fenced = |fence| Transaction {
            operations: vec![put("a", "1", Require::Anything)],
            fence: Some(fence),
        };
        assert_eq!(state.apply(&fenced(2)).outcome, Outcome::Fenced { term: 3 });
        let before = state.snapshot().clone();
        assert!(matches!(
            state.apply(&fenced(3)).outcome,
            Outcome::Committed { .. }
        ));
        assert_eq!((before.len(), state.snapshot().len()), (0, 1));
    }

    #[test]
    fn lists_are_in_order_within_resource_and_namespace_and_go_on_after_a_key() {
        let mut state = state();
        for path in [
            "pods/x/b",
            "pods/x/a",
            "pods/y/a",
            "nodes//n",
            "services/x/a",
            "pods/x/a-b",
        ] {
            apply(&mut state, vec![put(path, "1", Require::Absent)]);
        }
        assert_eq!(names(&state, "pods", None, None), "x/a x/a-b x/b y/a");
        assert_eq!(names(&state, "pods", Some("x"), None), "x/a x/a-b x/b");
        assert_eq!(names(&state, "pods", Some("x"), Some(("x", "a"))), "x/a-b x/b");
        assert_eq!(names(&state, "pods", None, Some(("x", "b"))), "y/a");
        assert_eq!(names(&state, "pods", Some("y"), Some(("x", "z"))), "y/a");
        assert_eq!(names(&state, "nodes", None, None), "/n");
        assert_eq!(
            state.snapshot().count(&ResourceName::new("", "pods"), Some("x")),
            3
        );
    }

    #[test]
    fn a_history_without_room_tells_where_watching_can_start() {
        let limits = HistoryLimits {
            events_max: 3,
            ..HistoryLimits::default()
        };
        let mut state = State::new(Snapshot::default(), 0, limits);
        for number in 0..5 {
            apply(&mut state, vec![put("a", &number.to_string(), Require::Anything)]);
        }
        assert_eq!(events(&state, 1), "changes before revision 2 are no longer kept");
        assert_eq!(events(&state, 2), "Modified a@3, Modified a@4, Modified a@5 to 5");
        assert_eq!(events(&state, 5), " to 5");
        // Another resource has lost nothing.
        let page = state
            .events(&ResourceName::new("", "nodes"), None, Revision(0), 10)
            .unwrap();
        assert_eq!(page.revision, Revision(5));
    }

    #[test]
    fn a_history_is_bounded_by_bytes_and_keeps_at_least_the_newest() {
        let limits = HistoryLimits {
            bytes_max: 1000,
            ..HistoryLimits::default()
        };
        let mut state = State::new(Snapshot::default(), 0, limits);
        for number in 0..10 {
            apply(&mut state, vec![put("a", &number.to_string(), Require::Anything)]);
        }
        assert_eq!(
            events(&state, 7),
            "Modified a@8, Modified a@9, Modified a@10 to 10"
        );
        assert_eq!(events(&state, 6), "changes before revision 7 are no longer kept");
        apply(&mut state, vec![put("a", &"x".repeat(5000), Require::Anything)]);
        assert_eq!(events(&state, 10), "Modified a@11 to 11");
    }

    #[test]
    fn a_history_that_is_full_in_all_takes_from_the_resource_with_most() {
        let limits = HistoryLimits {
            total_bytes_max: 3000,
            total_events_max: 12,
            ..HistoryLimits::default()
        };
        let mut state = State::new(Snapshot::default(), 0, limits);
        apply(&mut state, vec![put("nodes//n", "1", Require::Anything)]);
        for number in 0..20 {
            apply(&mut state, vec![put("a", &number.to_string(), Require::Anything)]);
        }
        assert_eq!(state.history_size().events, 9, "{:?}", state.history_size());
        assert!(state.history_size().bytes <= 3000, "{:?}", state.history_size());
        assert_eq!(
            events(&state, 12),
            "changes before revision 13 are no longer kept"
        );
        let nodes = ResourceName::new("", "nodes");
        assert_eq!(
            state.events(&nodes, None, Revision(0), 10).unwrap().events.len(),
            1
        );
        // Counted in events, it is the same.
        let limits = HistoryLimits {
            total_events_max: 3,
            ..HistoryLimits::default()
        };
        let mut state = State::new(Snapshot::default(), 0, limits);
        apply(&mut state, vec![put("nodes//n", "1", Require::Anything)]);
        for number in 0..20 {
            apply(&mut state, vec![put("a", &number.to_string(), Require::Anything)]);
        }
        assert_eq!(events(&state, 19), "Modified a@20, Modified a@21 to 21");
        assert_eq!(
            state.events(&nodes, None, Revision(0), 10).unwrap().events.len(),
            1
        );
    }

    #[test]
    fn growth_is_what_the_store_would_have_more() {
        let mut state = state();
        apply(&mut state, vec![put("a", "1", Require::Absent)]);
        apply(&mut state, vec![put("b", "123456", Require::Absent)]);
        let growth = |state: &State, operations| {
            let transaction = Transaction {
                operations,
                fence: None,
            };
            state.snapshot().growth(&transaction)
        };
        assert!(growth(&state, vec![put("c", "1", Require::Absent)]).creates);
        assert_eq!(
            growth(&state, vec![check_that("a", Require::Present)]),
            Growth::default()
        );
        let before = state.snapshot().bytes();
        let operations = || vec![put("a", "12345", Require::Present), delete("b", Require::Present)];
        let expected = growth(&state, operations());
        assert!(!expected.creates && expected.bytes < 0, "{expected:?}");
        apply(&mut state, operations());
        // But for the revision that is stamped into what is put.
        let stamp = r#""resourceVersion":"3","#.len() as u64;
        let after = state.snapshot().bytes();
        assert_eq!(after, before.checked_add_signed(expected.bytes).unwrap() + stamp);
        apply(&mut state, vec![delete("a", Require::Present)]);
        assert_eq!(state.snapshot().bytes(), 0);
    }

    #[test]
    fn what_is_called_old_is_forgotten_and_nothing_else_changes() {
        let mut state = state();
        for path in ["a", "nodes//n", "a", "a"] {
            apply(&mut state, vec![put(path, "1", Require::Anything)]);
        }
        state.forget_events(Revision(3));
        assert_eq!(events(&state, 2), "changes before revision 3 are no longer kept");
        assert_eq!(events(&state, 3), "Modified a@4 to 4");
        let nodes = ResourceName::new("", "nodes");
        assert!(state.events(&nodes, None, Revision(1), 10).is_err());
        assert!(state.events(&nodes, None, Revision(2), 10).is_ok());
        assert_eq!(state.history_size().events, 1);
        assert_eq!(
            (state.snapshot().len(), state.snapshot().revision()),
            (2, Revision(4))
        );
        // An older moment forgets nothing more.
        state.forget_events(Revision(1));
        assert_eq!(events(&state, 3), "Modified a@4 to 4");
        state.forget_events(Revision(4));
        assert_eq!(state.history_size(), HistorySize::default());
    }

    #[test]
    fn a_page_of_large_events_is_short() {
        let mut state = state();
        for _ in 0..9 {
            apply(
                &mut state,
                vec![put("a", &"x".repeat(100_000), Require::Anything)],
            );
        }
        let page = state.events(&key("a").resource, None, Revision(0), 256).unwrap();
        assert_eq!(
            (page.events.len(), page.revision, page.more),
            (3, Revision(3), true)
        );
        let page = state.events(&key("a").resource, None, Revision(7), 256).unwrap();
        assert_eq!(
            (page.events.len(), page.revision, page.more),
            (2, Revision(9), false)
        );
    }

    #[test]
    fn only_the_newest_events_keep_decoded_forms() {
        let mut state = state();
        let mut decoded = Vec::new();
        for number in 0..200 {
            apply(&mut state, vec![put("a", &number.to_string(), Require::Anything)]);
            let object = state.snapshot().get(&key("a")).unwrap();
            decoded.push(Arc::downgrade(&object.cached(|object| object.modified)));
        }
        let kept = decoded.iter().filter(|form| form.strong_count() > 0).count();
        assert!((1..100).contains(&kept), "{kept} forms are kept");
        assert!(decoded[199].strong_count() > 0);
    }

    #[test]
    fn pages_follow_one_another_without_gap_and_skip_other_namespaces() {
        let mut state = state();
        for number in 1..=9 {
            let path = if number % 3 == 0 { "pods/y/a" } else { "pods/x/a" };
            apply(&mut state, vec![put(path, "1", Require::Anything)]);
        }
        let (mut after, mut seen, mut pages) = (Revision(0), Vec::new(), 0);
        loop {
            let page = state.events(&key("a").resource, Some("x"), after, 2).unwrap();
            seen.extend(page.events.iter().map(|event| event.revision.0));
            after = page.revision;
            pages += 1;
            if !page.more {
                break;
            }
        }
        assert_eq!((seen, after, pages), (vec![1, 2, 4, 5, 7, 8], Revision(9), 5));
    }

    #[test]
    fn after_an_installed_snapshot_older_watches_have_to_start_again() {
        let mut state = state();
        for _ in 0..5 {
            apply(&mut state, vec![put("a", "1", Require::Anything)]);
        }
        let mut installed = State::new(state.snapshot().clone(), 7, HistoryLimits::default());
        assert_eq!(
            events(&installed, 4),
            "changes before revision 5 are no longer kept"
        );
        assert_eq!(events(&installed, 5), " to 5");
        apply(&mut installed, vec![put("b", "1", Require::Absent)]);
        assert_eq!(events(&installed, 5), "Added b@6 to 6");
        assert_eq!(installed.term(), 7);
    }
}
