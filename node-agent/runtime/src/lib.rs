//! Shims, libcontainer, log files.
