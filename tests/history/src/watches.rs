//! Watch streams against the committed history: ordered, without gap or duplicate, over all connections.

use std::collections::HashMap;

use crate::History;
use crate::changes::{Change, Changes};
use crate::operation::{Listing, Revision};
use crate::stream::{Event, Kind, Step, Stream};
use crate::violation::{Promise, Violation};

/// Checks every stream.
pub(crate) fn check(history: &History, changes: &Changes<'_>) -> Result<(), Violation> {
    history.streams.iter().try_for_each(|stream| {
        let follower = Follower {
            stream,
            changes,
            position: None,
            objects: HashMap::new(),
            is_complete: false,
        };
        follower.follow()
    })
}

/// What a watcher knows at some step of its stream.
struct Follower<'a> {
    stream: &'a Stream,
    changes: &'a Changes<'a>,
    /// All changes up to here have been told.
    position: Option<Revision>,
    /// The objects as the stream left them; `None` of those that it removed.
    objects: HashMap<&'a str, Option<&'a str>>,
    /// What is not among the objects does not exist; otherwise nothing is known of it.
    is_complete: bool,
}

impl<'a> Follower<'a> {
    fn follow(mut self) -> Result<(), Violation> {
        for (at, step) in self.stream.steps.iter().enumerate() {
            let done = match step {
                Step::Listed(listing) => self.list(listing),
                Step::Follows(revision) => self.resume(*revision),
                Step::Event(event) => self.take(event),
                Step::Bookmark(revision) => self.pass(*revision, *revision),
            };
            done.map_err(|(what, missing)| self.violation(at, &what, missing))?;
        }
        let through = self.stream.through.unwrap_or_default();
        let end = self.stream.steps.len();
        match self.missing(through) {
            Some((revision, change)) => {
                let what = format!("the change at revision {revision} never arrived");
                Err(self.violation(end, &what, Some(change.source.to_string())))
            }
            None => Ok(()),
        }
    }

    fn list(&mut self, listing: &'a Listing) -> Result<(), Wrong> {
        if self.position.is_some_and(|position| listing.revision < position) {
            return Err(("a list is older than what was told before".to_owned(), None));
        }
        self.position = Some(listing.revision);
        let objects = listing.objects.iter();
        self.objects = objects
            .map(|(key, object)| (key.as_str(), Some(object.value.as_str())))
            .collect();
        self.is_complete = true;
        Ok(())
    }

    fn resume(&mut self, revision: Revision) -> Result<(), Wrong> {
        match self.position {
            Some(position) if position != revision => {
                let what = format!("the watcher had seen all up to revision {position}");
                Err((what, None))
            }
            Some(_) => Ok(()),
            None => {
                self.position = Some(revision);
                self.is_complete = revision == Revision(0);
                Ok(())
            }
        }
    }

    fn take(&mut self, event: &'a Event) -> Result<(), Wrong> {
        let position = self.position.unwrap_or_default();
        if !event.key.starts_with(&self.stream.prefix) {
            return Err((format!("{} is not watched", event.key), None));
        }
        if event.revision <= position {
            let what = format!("an event is not newer than revision {position}, which was told before");
            return Err((what, None));
        }
        self.pass(event.revision, Revision(event.revision.0 - 1))?;
        let before = self.objects.get(event.key.as_str()).copied();
        let before = before.or(self.is_complete.then_some(None));
        let fits = match (event.kind, before) {
            (_, None) | (Kind::Added, Some(None)) | (Kind::Modified, Some(Some(_))) => true,
            (Kind::Deleted, Some(Some(value))) => value == event.value,
            (Kind::Added, Some(Some(_))) | (Kind::Modified | Kind::Deleted, Some(None)) => false,
        };
        if !fits {
            let was = match before.flatten() {
                Some(value) => format!("{}={value} was there", event.key),
                None => format!("there was no {}", event.key),
            };
            return Err((format!("an event does not fit: {was}"), None));
        }
        let value = (event.kind != Kind::Deleted).then_some(event.value.as_str());
        self.objects.insert(&event.key, value);
        Ok(())
    }

    /// Moves on to a revision; nothing may have happened up to another.
    fn pass(&mut self, to: Revision, quiet: Revision) -> Result<(), Wrong> {
        if self.position.is_some_and(|position| to < position) {
            return Err(("a bookmark is older than what was told before".to_owned(), None));
        }
        if let Some((revision, change)) = self.missing(quiet) {
            let what = format!("the change at revision {revision} was left out");
            return Err((what, Some(change.source.to_string())));
        }
        self.position = Some(to);
        Ok(())
    }

    /// The first change after the position, up to a revision.
    fn missing(&self, through: Revision) -> Option<(Revision, &'a Change<'a>)> {
        let from = self.position?;
        self.changes
            .between(from, through)
            .find(|(_, change)| change.key.starts_with(&self.stream.prefix))
    }

    fn violation(&self, at: usize, what: &str, missing: Option<String>) -> Violation {
        const STEPS_BEFORE: usize = 2;
        let steps = &self.stream.steps;
        let near = &steps[at.saturating_sub(STEPS_BEFORE)..steps.len().min(at + 1)];
        let told = near.iter().map(Step::to_string).chain(missing);
        let what = format!("watcher {}: {what}", self.stream.watcher);
        Violation::new(Promise::CompleteWatches, what, told)
    }
}

/// What is wrong, and who told of the change that is missing.
type Wrong = (String, Option<String>);
