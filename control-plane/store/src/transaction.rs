//! What may be proposed, and what came of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::key::{Key, Revision};
use crate::object::{Draft, Stored};
use crate::planted::{PlantedBug, is_planted};

/// What must hold for the object under a key before an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Require {
    /// No demand.
    Anything,
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// There is one, and this change was its last.
    Modified(Revision),
}

impl Require {
    /// Whether `found` is as demanded.
    pub fn holds(self, found: Option<&Stored>) -> bool {
        match self {
            Require::Anything => true,
            Require::Absent => found.is_none(),
            Require::Present => found.is_some(),
            Require::Modified(_) if is_planted(PlantedBug::IgnoreRevision) => found.is_some(),
            Require::Modified(revision) => found.is_some_and(|object| object.modified == revision),
        }
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Creates or replaces an object.
    Put {
        /// Where it goes.
        key: Key,
        /// Its new state.
        draft: Draft,
        /// What must hold before.
        require: Require,
    },
    /// Removes an object; without one there is nothing to do.
    Delete {
        /// Which one.
        key: Key,
        /// What must hold before.
        require: Require,
    },
    /// Changes nothing, but fails the transaction when the demand does not hold.
    Check {
        /// Which object.
        key: Key,
        /// What must hold.
        require: Require,
    },
}

impl Operation {
    /// The object that the operation is about.
    pub fn key(&self) -> &Key {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key, .. } | Operation::Check { key, .. } => key,
        }
    }

    /// What must hold before it.
    pub fn require(&self) -> Require {
        match self {
            Operation::Put { require, .. }
            | Operation::Delete { require, .. }
            | Operation::Check { require, .. } => *require,
        }
    }
}

/// Operations that are applied in order, all or none. Each sees the effect of those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What to do.
    pub operations: Vec<Operation>,
    /// The Raft term in which the proposer leads; refused once a newer leader's entries are applied.
    pub fence: Option<u64>,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All of it was done.
    Committed {
        /// The store's revision just after it.
        revision: Revision,
        /// Per operation: the new object for a put; the deleted object, stamped with the revision of its
        /// deletion, for a delete; what was found for a check.
        objects: Vec<Option<Arc<Stored>>>,
    },
    /// Nothing was done, because a demand did not hold.
    Conflict {
        /// Index of the operation.
        operation: usize,
        /// What was there instead.
        found: Option<Arc<Stored>>,
    },
    /// Nothing was done, because the proposer is no longer the leader.
    Fenced {
        /// The newest term that is known.
        term: u64,
    },
}
