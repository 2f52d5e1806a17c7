//! The replicated object store as a pure state machine: versioned keys, transactions, watch history.
//!
//! [`State::apply`] is a function of state and transaction: no clock, no randomness, no I/O. Every replica
//! that applies the same transactions in the same order has the same objects, revisions and events.
//! Never decodes an object: values are opaque JSON bytes, apart from the place where the revision is stamped.

mod history;
mod image;
mod key;
mod limits;
mod object;
pub mod planted;
mod snapshot;
mod state;
mod transaction;

pub use history::{Change, Event, History, HistoryLimits, HistoryPage, HistorySize, TooOld};
pub use image::{ReadImageError, read_image, write_image};
pub use key::{Key, ResourceName, Revision};
pub use limits::{
    OBJECT_BYTES_MAX, REQUEST_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX, TooLarge,
};
pub use object::{Draft, Stored};
pub use snapshot::{Growth, Snapshot};
pub use state::{Applied, State};
pub use transaction::{Operation, Outcome, Require, Transaction};
