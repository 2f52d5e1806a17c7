//! When a node is short of memory, disk, inodes or process numbers, which pod has to go then,
//! and which fills more of the disk than it may.
//!
//! Everything is numbers in, decision out: the agent measures, asks, and carries the answer out.

mod ranking;
mod signals;
mod storage;
mod thresholds;

pub(crate) use ranking::is_critical;
pub use ranking::{Contestant, Use, choose};
pub use signals::{Condition, Level, Levels, Met, Pressure, Pressures, met};
pub use storage::{StorageUse, has_storage_limit, over_storage_limit};
pub use thresholds::{Amount, ParseThresholdError, Signal, Threshold, Thresholds};
