//! How large things may be, all in one place: every layer refuses what is larger.
//!
//! Pure. The refusal comes before the proposal, so that what is in a log is always applied: a later version with
//! other limits reads the same log.

use crate::key::Key;
use crate::transaction::{Operation, Transaction};

/// The JSON of one object: what etcd takes by default, so what fits into a Kubernetes cluster fits here.
pub const OBJECT_BYTES_MAX: usize = 3 << 19;
/// The body of one request, as in Kubernetes: an object in its widest spelling.
pub const REQUEST_BYTES_MAX: usize = 3 << 20;
/// Operations of one transaction. The largest that we make ourselves are batches of 128 bindings, with a check for
/// each node.
pub const TRANSACTION_OPERATIONS_MAX: usize = 1024;
/// Objects and names of one transaction together. It becomes one log entry, which one message carries to a follower.
pub const TRANSACTION_BYTES_MAX: usize = 4 << 20;

/// Why a transaction is not proposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// One object is too large.
    #[error("{key} has {bytes} bytes, the limit for an object is {OBJECT_BYTES_MAX}")]
    Object {
        /// Which one.
        key: Key,
        /// The length of its JSON.
        bytes: usize,
    },
    /// There are too many operations.
    #[error("the transaction has {operations} operations, the limit is {TRANSACTION_OPERATIONS_MAX}")]
    Operations {
        /// How many.
        operations: usize,
    },
    /// Its objects are too large together.
    #[error("the transaction has {bytes} bytes, the limit is {TRANSACTION_BYTES_MAX}")]
    Bytes {
        /// How many.
        bytes: usize,
    },
}

impl Operation {
    /// What it adds to the size of its transaction.
    pub fn bytes(&self) -> usize {
        let object = match self {
            Operation::Put { draft, .. } => draft.json.len(),
            Operation::Delete { .. } | Operation::Check { .. } => 0,
        };
        self.key().bytes() + object
    }

    /// Refuses an object that is too large.
    pub fn check_size(&self) -> Result<(), TooLarge> {
        match self {
            Operation::Put { key, draft, .. } if draft.json.len() > OBJECT_BYTES_MAX => {
                Err(TooLarge::Object {
                    key: key.clone(),
                    bytes: draft.json.len(),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Transaction {
    /// Objects and names together.
    pub fn bytes(&self) -> usize {
        self.operations.iter().map(Operation::bytes).sum()
    }

    /// Says what of it is too large, if anything.
    pub fn check_size(&self) -> Result<(), TooLarge> {
        self.operations.iter().try_for_each(Operation::check_size)?;
        let operations = self.operations.len();
        if operations > TRANSACTION_OPERATIONS_MAX {
            return Err(TooLarge::Operations { operations });
        }
        let bytes = self.bytes();
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(TooLarge::Bytes { bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::key::ResourceName;
    use crate::object::Draft;
    use crate::transaction::Require;

    fn transaction(objects: usize, object_bytes: usize) -> Transaction {
        let put = |number: usize| Operation::Put {
            key: Key::new(ResourceName::new("", "pods"), "default", number.to_string()),
            draft: Draft {
                json: Bytes::from(vec![b' '; object_bytes]),
                revision_at: 0,
            },
            require: Require::Anything,
        };
        Transaction {
            operations: (0..objects).map(put).collect(),
            fence: None,
        }
    }

    #[track_caller]
    fn check(objects: usize, object_bytes: usize, wanted: &str) {
        let found = transaction(objects, object_bytes).check_size();
        let found = found.map_or_else(|error| error.to_string(), |()| "fits".to_owned());
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_too_large_is_named_with_its_limit() {
        check(1, OBJECT_BYTES_MAX, "fits");
        check(
            1,
            OBJECT_BYTES_MAX + 1,
            "pods default/0 has 1572865 bytes, the limit for an object is 1572864",
        );
        check(TRANSACTION_OPERATIONS_MAX, 1000, "fits");
        check(1025, 1, "the transaction has 1025 operations, the limit is 1024");
        check(2, OBJECT_BYTES_MAX, "fits");
        check(
            3,
            OBJECT_BYTES_MAX,
            "the transaction has 4718724 bytes, the limit is 4194304",
        );
    }
}
