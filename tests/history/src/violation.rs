//! A promise that was broken, in words.

use std::fmt;

/// Which promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// A revision belongs to one change, a write happens once, and nothing is stored that nobody wrote.
    OneChangePerRevision,
    /// For each key there is an order of the operations, within their times, that explains all answers.
    Linearizable,
    /// Over all keys, the order of revisions is an order of real time.
    StrictlySerializable,
    /// A list shows exactly what was there at its revision.
    ExactLists,
    /// What was acknowledged is there in the end.
    Durable,
    /// A watch tells every change once and in order.
    CompleteWatches,
}

/// A promise that was broken, with the part of the history that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// What is wrong.
    pub what: String,
    /// The operations and events that contradict each other.
    pub excerpt: Vec<String>,
}

impl Violation {
    pub(crate) fn new(
        promise: Promise,
        what: impl Into<String>,
        excerpt: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            promise,
            what: what.into(),
            excerpt: excerpt.into_iter().collect(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} is violated: {}", self.promise, self.what)?;
        self.excerpt
            .iter()
            .try_for_each(|line| write!(out, "\n    {line}"))
    }
}

impl std::error::Error for Violation {}
