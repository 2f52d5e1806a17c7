//! Deletes what a container leaves. Runs in a fork of the shim.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::mapping::Users;
use super::report::{Report, send};
use super::{staging, sub_path};
use crate::cgroup::Cgroups;
use crate::layout::ContainerPaths;

/// Where a container left something.
pub(super) struct Leftovers<'a> {
    pub(super) paths: &'a ContainerPaths,
    pub(super) cgroups: &'a Cgroups,
    /// The container's.
    pub(super) cgroup: &'a str,
    /// The pod's users, if they are not the node's.
    pub(super) users: Option<&'a Users>,
}

/// Deletes and reports what stays.
pub(super) fn run(leftovers: &Leftovers<'_>, report: &File) {
    if let Err(error) = remove(leftovers) {
        // Without a shim there is nobody to tell.
        send(report, &Report::Leftover(error.to_string())).ok();
    }
}

fn remove(leftovers: &Leftovers<'_>) -> io::Result<()> {
    let Leftovers { paths, cgroups, .. } = leftovers;
    // Normally empty: the container's init has ended, and took its pid namespace with it.
    cgroups.kill(leftovers.cgroup);
    cgroups.remove(leftovers.cgroup)?;
    if let Some(users) = leftovers.users {
        users.remove_stage(paths)?;
    }
    staging::remove(paths)?;
    detach(&paths.rootfs())?;
    sub_path::release(paths)?;
    paths.remove_files()
}

/// Unmounts what is mounted there, if anything is.
pub(super) fn detach(place: &std::path::Path) -> io::Result<()> {
    match umount2(place, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
