//! What one watcher saw.

use std::fmt;

use crate::operation::{Listing, Revision};

/// What an event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The object was created.
    Added,
    /// It was replaced.
    Modified,
    /// It was removed.
    Deleted,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// To which object.
    pub key: String,
    /// The object's tag; of a deletion the last one.
    pub value: String,
    /// When.
    pub revision: Revision,
}

/// One thing that happened to a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It listed, and follows from there: at its start, or because its revision had expired.
    Listed(Listing),
    /// It follows what comes after this revision: at its start, or over a new connection.
    Follows(Revision),
    /// It was told of a change.
    Event(Event),
    /// It was told that there is nothing else up to here.
    Bookmark(Revision),
}

/// All that one watcher saw, over all its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Who watched, for messages.
    pub watcher: String,
    /// What it watched: all keys that begin so.
    pub prefix: String,
    /// What it saw, in order.
    pub steps: Vec<Step>,
    /// Everything up to here must have arrived; unset when the watcher was stopped in the middle.
    pub through: Option<Revision>,
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event {
            kind,
            key,
            value,
            revision,
        } = self;
        write!(out, "{kind:?} {key}={value} at revision {revision}")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Listed(listing) => write!(out, "listed at revision {}", listing.revision),
            Step::Follows(revision) => write!(out, "followed from revision {revision} on"),
            Step::Event(event) => event.fmt(out),
            Step::Bookmark(revision) => write!(out, "a bookmark at revision {revision}"),
        }
    }
}
