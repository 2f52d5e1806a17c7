//! Replicates the store: openraft on sled.

mod api;

pub use api::*;
