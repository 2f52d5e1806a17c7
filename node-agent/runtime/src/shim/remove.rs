//! Deletes what a container leaves. Runs in a fork of the shim.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::report::{Report, send};
use super::{staging, sub_path};
use crate::cgroup::Cgroups;
use crate::layout::ContainerPaths;

/// Deletes and reports what stays.
pub(super) fn run(paths: &ContainerPaths, cgroups: &Cgroups, cgroup: &str, report: &File) {
    if let Err(error) = remove(paths, cgroups, cgroup) {
        // Without a shim there is nobody to tell.
        send(report, &Report::Leftover(error.to_string())).ok();
    }
}

fn remove(paths: &ContainerPaths, cgroups: &Cgroups, cgroup: &str) -> io::Result<()> {
    // Normally empty: the container's init has ended, and took its pid namespace with it.
    cgroups.kill(cgroup);
    cgroups.remove(cgroup)?;
    staging::remove(paths)?;
    match umount2(&paths.rootfs(), MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    sub_path::release(paths)?;
    paths.remove_files()
}
