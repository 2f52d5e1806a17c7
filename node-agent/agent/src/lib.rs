//! A node: options, wiring, run, drain.
