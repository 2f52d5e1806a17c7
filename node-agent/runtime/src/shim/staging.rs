//! Prepares mounts that libcontainer cannot make: those of a container in which mounts pass to or from the node.
//!
//! It gives one propagation to all mounts of a container. So where some of them pass mounts on, those that must not
//! come from private copies, and those that pass them on to the node from a copy of the node's own mount: the shim
//! has only followers of those.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::layout::ContainerPaths;
use crate::protocol::StartFailure;
use crate::spec::{ContainerSpec, Mount, MountKind, Propagation};

/// The container's mounts, with sources that have the right propagation. `node` is the node's mount namespace.
pub(super) fn stage(
    container: &ContainerSpec,
    paths: &ContainerPaths,
    node: &OwnedFd,
) -> Result<Vec<Mount>, StartFailure> {
    let mut mounts = container.mounts.clone();
    if mounts
        .iter()
        .all(|wanted| wanted.propagation == Propagation::None)
    {
        return Ok(mounts);
    }
    for (number, wanted) in mounts.iter_mut().enumerate() {
        if wanted.kind == MountKind::Tmpfs || wanted.propagation == Propagation::HostToContainer {
            continue;
        }
        let place = paths.mounts().join(number.to_string());
        let staged = match wanted.propagation {
            Propagation::Bidirectional if wanted.source.starts_with(paths.sub_paths()) => Err(
                io::Error::other("a part of a volume (subPath) cannot pass mounts on to the node"),
            ),
            Propagation::Bidirectional => copy_of_node(&wanted.source, &place, node),
            _ => private_copy(&wanted.source, &place),
        };
        staged.map_err(|error| StartFailure::Create {
            reason: format!("cannot prepare the mount of {}: {error}", wanted.source.display()),
        })?;
        wanted.source = place;
    }
    Ok(mounts)
}

fn make_place(like: &Path, place: &Path) -> io::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::metadata(like)?.is_dir() {
        true => fs::create_dir_all(place),
        false => File::create(place).map(drop),
    }
}

fn private_copy(source: &Path, place: &Path) -> io::Result<()> {
    let none = None::<&str>;
    make_place(source, place)?;
    mount(
        Some(source),
        place,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )?;
    Ok(mount(
        none,
        place,
        none,
        MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        none,
    )?)
}

fn copy_of_node(source: &Path, place: &Path, node: &OwnedFd) -> io::Result<()> {
    make_place(source, place)?;
    let own = File::open("/proc/self/ns/mnt")?;
    let mount_namespace = Some(LinkNameSpaceType::Mount);
    move_into_link_name_space(node.as_fd(), mount_namespace)?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let copied = open_tree(CWD, source, flags);
    move_into_link_name_space(own.as_fd(), mount_namespace)?;
    move_mount(&copied?, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Unmounts what was staged.
pub(super) fn remove(paths: &ContainerPaths) -> io::Result<()> {
    let staged: Vec<PathBuf> = match fs::read_dir(paths.mounts()) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for place in staged {
        match umount2(&place, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
