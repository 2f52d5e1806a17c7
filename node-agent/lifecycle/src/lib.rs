//! The pod state machine.
