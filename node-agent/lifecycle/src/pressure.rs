//! When a node is short of memory, disk, inodes or process numbers, and which pod has to go then.
//!
//! Everything is numbers in, decision out: the agent measures, asks, and carries the answer out.

mod ranking;
mod signals;
mod thresholds;

pub(crate) use ranking::is_critical;
pub use ranking::{Contestant, Use, choose};
pub use signals::{Condition, Level, Levels, Met, Pressure, Pressures, met};
pub use thresholds::{Amount, ParseThresholdError, Signal, Threshold, Thresholds};
