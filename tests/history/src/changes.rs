//! Every change that anybody saw, by revision and by key: the committed history as far as it is known.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use crate::History;
use crate::operation::{Action, Found, Listing, Operation, Outcome, Revision};
use crate::stream::{Event, Kind, Step, Stream};
use crate::violation::{Promise, Violation};

/// Who told of a change.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Operation(&'a Operation),
    Event(&'a Stream, &'a Event),
    Listed(&'a Stream, Revision),
    Last(Revision),
}

/// A change: the key, and its new value unless it was removed.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: Option<&'a str>,
    pub(crate) source: Source<'a>,
}

/// What a watcher was told without a gap: all changes of the prefix after `from`, up to `to`.
struct Span<'a> {
    prefix: &'a str,
    from: Revision,
    to: Revision,
}

/// The committed history as far as anybody saw it.
#[derive(Default)]
pub(crate) struct Changes<'a> {
    by_revision: BTreeMap<Revision, Change<'a>>,
    by_key: HashMap<&'a str, BTreeMap<Revision, Option<&'a str>>>,
    dates: HashMap<(&'a str, &'a str), Revision>,
    writers: HashMap<(&'a str, &'a str), &'a Operation>,
    deleters: HashMap<&'a str, Vec<&'a Operation>>,
    spans: Vec<Span<'a>>,
}

impl<'a> Changes<'a> {
    /// Puts together what operations, watchers and the last look saw; fails where they contradict each other.
    pub(crate) fn gather(history: &'a History) -> Result<Self, Violation> {
        let mut changes = Self::default();
        for operation in &history.operations {
            changes.know_writer(operation);
        }
        for operation in &history.operations {
            changes.add_operation(operation)?;
        }
        for stream in &history.streams {
            changes.add_stream(stream)?;
        }
        if let Some(last) = &history.last {
            changes.add_listing(last, Source::Last(last.revision))?;
        }
        changes.every_deletion_was_asked_for()?;
        Ok(changes)
    }

    /// All changes after a revision, up to and with another.
    pub(crate) fn between(
        &self,
        after: Revision,
        through: Revision,
    ) -> impl Iterator<Item = (Revision, &Change<'a>)> {
        let range = Revision(after.0.saturating_add(1))..;
        let within = self.by_revision.range(range);
        within
            .map(|(revision, change)| (*revision, change))
            .take_while(move |(revision, _)| *revision <= through)
    }

    /// All keys of which a change is known.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.by_key.keys().copied()
    }

    /// What a key was at a revision: its last known change.
    pub(crate) fn at(&self, key: &str, revision: Revision) -> Option<(Revision, Option<&'a str>)> {
        let (revision, value) = self.by_key.get(key)?.range(..=revision).next_back()?;
        Some((*revision, *value))
    }

    /// The first known change of a key after a revision.
    pub(crate) fn next(&self, key: &str, revision: Revision) -> Option<Revision> {
        let later = self.by_key.get(key)?.range(Revision(revision.0 + 1)..);
        later.map(|(revision, _)| *revision).next()
    }

    /// Whether a key is known to have been removed after a revision.
    pub(crate) fn is_removed_after(&self, key: &str, revision: Revision) -> bool {
        self.by_key
            .get(key)
            .is_some_and(|changes| changes.range(revision..).any(|(_, value)| value.is_none()))
    }

    /// When a value was written, if anybody saw that.
    pub(crate) fn date(&self, key: &str, value: &str) -> Option<Revision> {
        self.dates.get(&(key, value)).copied()
    }

    /// The change at a revision.
    pub(crate) fn change(&self, revision: Revision) -> Option<&Change<'a>> {
        self.by_revision.get(&revision)
    }

    /// Whether the object that was written at a revision may have been removed by a time, and by another revision,
    /// without that anybody saw when: some answers do not tell the revision of a deletion.
    pub(crate) fn may_be_gone(&self, key: &str, written: Revision, time: u64, through: Revision) -> bool {
        let is_watched = self
            .spans
            .iter()
            .any(|span| key.starts_with(span.prefix) && span.from <= written && through <= span.to);
        let put = self.change(written).and_then(|change| change.value);
        let put = put.and_then(|value| self.writers.get(&(key, value)));
        !is_watched
            && self.deleters.get(key).is_some_and(|deleters| {
                let is_dated = |deleter: &Operation| matches!(deleter.outcome, Outcome::Written(Some(_)));
                deleters.iter().any(|deleter| {
                    let is_later = put.is_none_or(|put| deleter.ended() >= put.invoked);
                    !is_dated(deleter) && deleter.invoked <= time && is_later
                })
            })
    }

    /// # Panics
    /// When two writes of a key have the same tag: then answers cannot be told apart.
    fn know_writer(&mut self, operation: &'a Operation) {
        match &operation.action {
            Action::Put { key, value, .. } => {
                let other = self.writers.insert((key, value), operation);
                assert!(other.is_none(), "{key}={value} is written by two operations");
            }
            Action::Delete { key, .. } if operation.may_have_written() => {
                self.deleters.entry(key).or_default().push(operation);
            }
            Action::Delete { .. } | Action::Get { .. } | Action::List { .. } => {}
        }
    }

    fn add_operation(&mut self, operation: &'a Operation) -> Result<(), Violation> {
        let source = Source::Operation(operation);
        match (&operation.action, &operation.outcome) {
            (Action::Put { key, value, .. }, Outcome::Written(Some(revision))) => {
                self.add(*revision, key, Some(value), source)
            }
            (Action::Delete { key, .. }, Outcome::Written(Some(revision))) => {
                self.add(*revision, key, None, source)
            }
            (Action::Get { key }, Outcome::Read(Some(object)))
            | (
                Action::Put { key, .. } | Action::Delete { key, .. },
                Outcome::Refused(Found::Object(object)),
            ) => self.add(object.revision, key, Some(&object.value), source),
            (_, Outcome::Listed(listing)) => self.add_listing(listing, source),
            _ => Ok(()),
        }
    }

    fn add_listing(&mut self, listing: &'a Listing, source: Source<'a>) -> Result<(), Violation> {
        listing
            .objects
            .iter()
            .try_for_each(|(key, object)| self.add(object.revision, key, Some(&object.value), source))
    }

    fn add_stream(&mut self, stream: &'a Stream) -> Result<(), Violation> {
        let mut span: Option<Span<'a>> = None;
        for step in &stream.steps {
            match step {
                Step::Event(event) => {
                    let value = (event.kind != Kind::Deleted).then_some(event.value.as_str());
                    self.add(event.revision, &event.key, value, Source::Event(stream, event))?;
                }
                Step::Listed(listing) => {
                    self.add_listing(listing, Source::Listed(stream, listing.revision))?;
                }
                Step::Follows(_) | Step::Bookmark(_) => {}
            }
            match (step, &mut span) {
                (Step::Event(Event { revision, .. }) | Step::Bookmark(revision), Some(span)) => {
                    span.to = span.to.max(*revision);
                }
                (Step::Listed(Listing { revision, .. }) | Step::Follows(revision), _) => {
                    let is_resumed = span.as_ref().is_some_and(|span| span.to == *revision);
                    if !is_resumed {
                        self.spans.extend(span.take());
                        let prefix = &stream.prefix;
                        let (from, to) = (*revision, *revision);
                        span = Some(Span { prefix, from, to });
                    }
                }
                _ => {}
            }
        }
        if let (Some(span), Some(through)) = (&mut span, stream.through) {
            span.to = span.to.max(through);
        }
        self.spans.extend(span);
        Ok(())
    }

    fn add(
        &mut self,
        revision: Revision,
        key: &'a str,
        value: Option<&'a str>,
        source: Source<'a>,
    ) -> Result<(), Violation> {
        if let Some(known) = self.by_revision.get(&revision) {
            let is_same = known.key == key && known.value == value;
            return is_same.then_some(()).ok_or_else(|| {
                let excerpt = [known.source.to_string(), source.to_string()];
                broken(format!("two changes have revision {revision}"), excerpt)
            });
        }
        if let Some(value) = value {
            self.add_value(revision, key, value, source)?;
        }
        self.by_revision.insert(revision, Change { key, value, source });
        self.by_key.entry(key).or_default().insert(revision, value);
        Ok(())
    }

    fn add_value(
        &mut self,
        revision: Revision,
        key: &'a str,
        value: &'a str,
        source: Source<'a>,
    ) -> Result<(), Violation> {
        let Some(writer) = self.writers.get(&(key, value)) else {
            let what = format!("{key}={value} is there, and nobody wrote it");
            return Err(broken(what, [source.to_string()]));
        };
        if !writer.may_have_written() {
            let what = format!("{key}={value} is there, although its write was refused or has failed");
            return Err(broken(what, [writer.to_string(), source.to_string()]));
        }
        if let Some(other) = self.dates.insert((key, value), revision) {
            let known = self.by_revision[&other].source;
            let what =
                format!("{key}={value} was asked for once and done at revisions {other} and {revision}");
            return Err(broken(what, [known.to_string(), source.to_string()]));
        }
        Ok(())
    }

    fn every_deletion_was_asked_for(&self) -> Result<(), Violation> {
        for (key, changes) in &self.by_key {
            let removed: HashSet<Revision> = changes
                .iter()
                .filter(|(_, value)| value.is_none())
                .map(|(revision, _)| *revision)
                .collect();
            let asked = self.deleters.get(key).map_or(0, Vec::len);
            if removed.len() > asked {
                let what = format!(
                    "{key} was removed {} times, asked for {asked} times",
                    removed.len()
                );
                let told = removed.iter().map(|revision| self.by_revision[revision].source);
                return Err(broken(what, told.map(|source| source.to_string())));
            }
        }
        Ok(())
    }
}

fn broken(what: String, excerpt: impl IntoIterator<Item = String>) -> Violation {
    Violation::new(Promise::OneChangePerRevision, what, excerpt)
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Operation(operation) => operation.fmt(out),
            Source::Event(stream, event) => write!(out, "watcher {}: {event}", stream.watcher),
            Source::Listed(stream, revision) => {
                write!(out, "watcher {}: listed at revision {revision}", stream.watcher)
            }
            Source::Last(revision) => write!(out, "the last look, at revision {revision}"),
        }
    }
}
