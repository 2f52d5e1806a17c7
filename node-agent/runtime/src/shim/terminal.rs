//! Terminals of containers.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, major, minor, openat2};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use crate::exec::TerminalSize;
use crate::sys;

/// Of the file system that terminals are in.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// A new terminal of the mount namespace that the calling process is in.
///
/// The container may have put anything where its `ptmx` should be, so it is looked at before it is used, and the
/// other end is never looked up by name.
pub(super) fn open(size: Option<TerminalSize>) -> io::Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let master = openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), resolve)?;
    let found = fstat(&master)?;
    let is_ptmx = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && (major(found.st_rdev), minor(found.st_rdev)) == (5, 2)
        && u64::try_from(fstatfs(&master)?.f_type) == Ok(DEVPTS_MAGIC);
    if !is_ptmx {
        return Err(io::Error::other("the container's /dev/pts/ptmx is no terminal"));
    }
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    if let Some(size) = size {
        sys::set_terminal_size(&master, size)?;
    }
    Ok(Terminal { master, slave })
}

/// Both ends of a terminal.
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

/// Starts a session whose terminal and standard streams are `slave`.
pub(super) fn take(slave: &OwnedFd) -> io::Result<()> {
    setsid()?;
    ioctl_tiocsctty(slave)?;
    (0..=2).try_for_each(|number| sys::become_standard(slave, number))
}
