//! A control-plane replica: options, wiring, run, drain.
