//! End-to-end tests on real clusters.
