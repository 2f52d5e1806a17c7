//! The process between an agent and the containers of one pod.

use std::ffi::OsString;

/// Runs a shim; the entry of the hidden verb `flotilla shim`, called first thing in `main`, with the
/// arguments after the verb.
///
/// *Assumes* that the process has no other thread.
pub fn shim_main(_args: impl Iterator<Item = OsString>) -> ! {
    std::process::exit(1)
}
