//! What clients of a store saw, and whether a store that keeps its promises could have shown it.
//!
//! A workload, on whatever cluster and clock, records a [`History`]: the operations of its clients, the streams of its
//! watchers, and one last look at everything. [`History::check`] holds it against what Flotilla promises, and says with
//! the smallest useful excerpt which promise was broken. Pure: no clock, no I/O, no knowledge of how the store works.
//!
//! The workload gives every write of a key a tag of its own, so that what is read leads back to who wrote it.

mod changes;
mod durability;
mod linear;
mod lists;
mod operation;
mod order;
mod stream;
#[cfg(test)]
mod text;
mod violation;
mod watches;

pub use operation::{Action, Found, Listing, Object, Operation, Outcome, Require, Revision};
pub use stream::{Event, Kind, Step, Stream};
pub use violation::{Promise, Violation};

/// All that a workload saw, of a store that was empty before it (as far as the workload's keys go).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What its clients asked and were told, in any order.
    pub operations: Vec<Operation>,
    /// What its watchers were told.
    pub streams: Vec<Stream>,
    /// Everything there was once all operations had returned; a linearizable read.
    pub last: Option<Listing>,
}

impl History {
    /// Checks every promise; the first that is broken is the answer.
    ///
    /// # Panics
    /// When two writes of one key have the same tag.
    pub fn check(&self) -> Result<(), Violation> {
        let changes = changes::Changes::gather(self)?;
        durability::check(self, &changes)?;
        order::check(self, &changes)?;
        lists::check(self, &changes)?;
        watches::check(self, &changes)?;
        linear::check(self, &changes)
    }
}

#[cfg(test)]
mod tests;
