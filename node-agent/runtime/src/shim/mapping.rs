//! Shows files of the node to a pod with users of its own (`hostUsers: false`).
//!
//! Its containers are made by a process that is nobody on the node. So all that it mounts is mounted before, with mapped
//! owners, on a stage that everybody may enter, whatever the modes of the folders above the originals.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, FileType, Gid, Uid, fchown, fstat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::remove::detach;
use crate::layout::ContainerPaths;
use crate::protocol::StartFailure;
use crate::spec::{Mount, MountKind, Propagation, User};
use crate::sys;
use crate::users::UserRange;

/// Where the stage is: the one folder that every Linux has and everybody may enter, and that a shim has no use for.
const STAGE: &str = "/sys/fs/cgroup";

/// A pod's own users.
pub(super) struct Users {
    range: UserRange,
    namespace: OwnedFd,
}

impl Users {
    /// The users of the pod in whose network namespace the calling process is; sets the stage up.
    pub(super) fn of_pod(range: UserRange) -> io::Result<Users> {
        let namespace = sys::owner_of(File::open("/proc/self/ns/net")?)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("stage"), STAGE, Some("tmpfs"), flags, Some("mode=0711"))?;
        Ok(Users { range, namespace })
    }

    /// A name for the pod's user namespace in this process and its forks.
    pub(super) fn namespace(&self) -> PathBuf {
        name_of(&self.namespace)
    }

    pub(super) fn namespace_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// The first of a container's ids that the pod does not have.
    pub(super) fn unknown_id(&self, user: &User) -> Option<u32> {
        let mut ids = [user.uid, user.gid]
            .into_iter()
            .chain(user.additional_gids.iter().copied());
        ids.find(|id| self.range.on_node(*id).is_none())
    }

    /// The pod's root on the node.
    pub(super) fn root(&self) -> (Uid, Gid) {
        (Uid::from_raw(self.range.first), Gid::from_raw(self.range.first))
    }

    /// Gives a pipe to one of the pod's users, so that they can open it by name (`/dev/stdout`).
    pub(super) fn give(&self, stream: impl AsFd, user: &User) -> io::Result<()> {
        let owner = self.range.on_node(user.uid).map(Uid::from_raw);
        Ok(fchown(stream, owner, None)?)
    }

    /// The layers of an image, mounted with mapped owners.
    pub(super) fn show_layers(
        &self,
        layers: &[PathBuf],
        paths: &ContainerPaths,
    ) -> Result<Vec<PathBuf>, StartFailure> {
        let folder = stage_of(paths).join("layers");
        let show = |(index, layer): (usize, &PathBuf)| {
            let place = folder.join(index.to_string());
            self.show_mapped(layer, &place)
                .map_err(|error| failed("the image", layer, &error))?;
            Ok(place)
        };
        layers.iter().enumerate().map(show).collect()
    }

    /// The mounts with sources whose owners are mapped.
    pub(super) fn show_mounts(
        &self,
        mut mounts: Vec<Mount>,
        paths: &ContainerPaths,
    ) -> Result<Vec<Mount>, StartFailure> {
        for (index, wanted) in mounts.iter_mut().enumerate() {
            if wanted.kind == MountKind::Tmpfs {
                continue;
            }
            let what = format!("the volume at {}", wanted.destination.display());
            if wanted.propagation == Propagation::Bidirectional {
                let reason =
                    format!("{what} cannot pass mounts on to the node in a pod with hostUsers: false");
                return Err(StartFailure::BadSpec { reason });
            }
            let place = stage_of(paths).join(index.to_string());
            self.show_mapped(&wanted.source, &place)
                .map_err(|error| failed(&what, &wanted.source, &error))?;
            wanted.source = place;
        }
        Ok(mounts)
    }

    fn show_mapped(&self, source: &Path, place: &Path) -> io::Result<()> {
        let tree = copy_of(source)?;
        // What is mounted below may be of another kind: it then shows with owners that the pod does not have.
        sys::map_owners(&tree, &self.namespace, true)
            .or_else(|_| sys::map_owners(&tree, &self.namespace, false))?;
        attach(&tree, place)
    }

    /// Unmounts what was staged for a container.
    pub(super) fn remove_stage(&self, paths: &ContainerPaths) -> io::Result<()> {
        let stage = stage_of(paths);
        remove_layers(paths)?;
        match fs::read_dir(&stage) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?.flatten().try_for_each(|entry| detach(&entry.path()))?,
        }
        fs::remove_dir_all(stage)
    }
}

/// Unmounts the layers of a root that has been mounted: it keeps what it needs.
pub(super) fn remove_layers(paths: &ContainerPaths) -> io::Result<()> {
    let folder = stage_of(paths).join("layers");
    match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?.flatten().try_for_each(|entry| detach(&entry.path()))?,
    }
    fs::remove_dir_all(folder)
}

/// Shows something of the shim's on the stage as it is, under this name.
pub(super) fn show(source: &Path, name: &str, paths: &ContainerPaths) -> Result<PathBuf, StartFailure> {
    let place = stage_of(paths).join(name);
    copy_of(source)
        .and_then(|tree| attach(&tree, &place))
        .map_err(|error| StartFailure::Create {
            reason: format!("cannot show the container its {name}: {error}"),
        })?;
    Ok(place)
}

/// A name for a descriptor in this process and its forks.
pub(super) fn name_of(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

fn stage_of(paths: &ContainerPaths) -> PathBuf {
    Path::new(STAGE).join(paths.bundle.file_name().unwrap_or_default())
}

fn copy_of(source: &Path) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(CWD, source, flags)?)
}

fn attach(tree: &OwnedFd, place: &Path) -> io::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    match FileType::from_raw_mode(fstat(tree)?.st_mode) {
        FileType::Directory => fs::create_dir(place)?,
        _ => drop(File::create(place)?),
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(tree, "", CWD, place, flags)?)
}

fn failed(what: &str, source: &Path, error: &io::Error) -> StartFailure {
    let reason = match error.raw_os_error() {
        Some(libc::EINVAL | libc::EPERM | libc::EOPNOTSUPP) => format!(
            "cannot map the users of {what} ({}) as hostUsers: false needs it: its file system, {}, cannot do that",
            source.display(),
            file_system_of(source)
        ),
        _ => format!("cannot prepare {what} ({}): {error}", source.display()),
    };
    StartFailure::Create { reason }
}

/// The type of the file system on which a path is.
fn file_system_of(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    type_in(&mountinfo, &path).unwrap_or("unknown").to_owned()
}

/// The last of the mounts that are deepest is what one sees.
fn type_in<'a>(mountinfo: &'a str, path: &Path) -> Option<&'a str> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        Some((Path::new(mount.split(' ').nth(4)?), rest.split(' ').next()?))
    });
    let above = mounts.filter(|(place, _)| path.starts_with(place));
    above
        .max_by_key(|(place, _)| place.components().count())
        .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_deepest_mount() {
        let mountinfo = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                         2 1 0:5 / /a rw,nosuid shared:2 - overlay o rw\n\
                         3 1 0:6 / /a rw - xfs x rw\n\
                         4 1 0:7 / /a/b rw - nfs4 s:/ rw\n";
        let kind = |path: &str| type_in(mountinfo, Path::new(path));
        assert_eq!(kind("/etc"), Some("ext4"));
        assert_eq!(kind("/a/x"), Some("xfs"), "mounted over the other");
        assert_eq!(kind("/a/bc"), Some("xfs"));
        assert_eq!(kind("/a/b/c"), Some("nfs4"));
    }
}
