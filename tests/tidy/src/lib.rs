//! Checks that keep the tree in order.
