//! Replicates the store: openraft on sled.
