//! Mounting and unmounting, so that doing it again is harmless.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Whether a file system of its own is mounted there. (A bind mount of the same file system is not seen by this.)
pub(crate) fn is_mounted(path: &Path) -> io::Result<bool> {
    let Some(parent) = path.parent() else {
        return Ok(true);
    };
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.dev() != fs::symlink_metadata(parent)?.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Mounts a file system of the kernel's own, unless one is mounted there already.
pub(crate) fn mount_new(kind: &str, path: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if is_mounted(path)? {
        return Ok(());
    }
    Ok(mount(Some(kind), path, Some(kind), flags, Some(options))?)
}

/// Nothing that is mounted there shows elsewhere, nor the other way round.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    Ok(mount(
        None::<&str>,
        path,
        None::<&str>,
        MsFlags::MS_PRIVATE,
        None::<&str>,
    )?)
}

/// Unmounts whatever is mounted there. What is still in use goes when its users do.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing (more) is mounted.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?,
            Err(errno) => return Err(errno.into()),
        }
    }
}
