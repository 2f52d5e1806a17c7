//! Reading from the master of a terminal.

use std::os::fd::AsFd;

use rustix::io::{Errno, read};

/// Reads from a terminal's master; 0 when nobody has its other end open any more.
///
/// The kernel looks for input first and for writers second, and says EIO for "neither": what is written and closed
/// between the two looks is found by the next read only.
pub(crate) fn read_master(master: impl AsFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let mut attempt = read(&master, &mut *buffer);
    if attempt == Err(Errno::IO) {
        attempt = read(&master, buffer);
    }
    match attempt {
        Err(Errno::IO) => Ok(0),
        other => other,
    }
}
