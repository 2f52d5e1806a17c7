//! Parts of volumes: found, or made, without following any link out of the volume.
//!
//! Whoever may write to the volume may change it at any moment, so a path is never resolved twice: what was opened
//! below the volume's root is mounted through its descriptor, and the container gets that mount.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::layout::ContainerPaths;
use crate::protocol::StartFailure;
use crate::spec::{ContainerSpec, Mount};

/// So many times a lookup that raced with a rename is tried again.
const LOOKUPS_MAX: usize = 64;

/// The container with each partial mount replaced by a mount of that part alone.
pub(super) fn resolve(spec: &ContainerSpec, paths: &ContainerPaths) -> Result<ContainerSpec, StartFailure> {
    let mut resolved = spec.clone();
    for (index, wanted) in resolved.mounts.iter_mut().enumerate() {
        let Some(part) = wanted.sub_path.take() else {
            continue;
        };
        let target = paths.sub_paths().join(index.to_string());
        attach(wanted, &part, &target).map_err(|error| StartFailure::Create {
            reason: format!(
                "failed to prepare subPath \"{}\" of {} for {}: {error}",
                part.display(),
                wanted.source.display(),
                wanted.destination.display()
            ),
        })?;
        wanted.source = target;
    }
    Ok(resolved)
}

fn attach(wanted: &Mount, part: &Path, target: &Path) -> io::Result<()> {
    let root = openat(
        CWD,
        &wanted.source,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let found = find_or_make(&root, part)?;
    fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
    let mode = fstat(&found)?.st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::Directory => fs::create_dir_all(target)?,
        FileType::Symlink => return Err(io::Error::other("it is a symbolic link")),
        _ => drop(File::create(target)?),
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&found, "", flags)?;
    Ok(move_mount(
        &tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

fn find_or_make(root: &OwnedFd, part: &Path) -> io::Result<OwnedFd> {
    match lookup(root, part) {
        Err(rustix::io::Errno::NOENT) => make(root, part),
        found => found.map_err(explain),
    }
}

/// Makes what is missing of the path, with the mode of the volume's root as kubelet does it.
fn make(root: &OwnedFd, part: &Path) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(fstat(root)?.st_mode & 0o7777);
    let mut reached = PathBuf::new();
    let mut parent = lookup(root, Path::new(".")).map_err(explain)?;
    for component in part.components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            _ => return Err(io::Error::other("it must be relative and without ..")),
        };
        reached.push(name);
        parent = match lookup(root, &reached) {
            Err(rustix::io::Errno::NOENT) => {
                match mkdirat(parent.as_fd(), name, mode) {
                    // Somebody else was faster; what it is shows at the lookup.
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                lookup(root, &reached).map_err(explain)?
            }
            found => found.map_err(explain)?,
        };
    }
    Ok(parent)
}

/// Opens a path below `root`; links may lead about inside, but not out.
fn lookup(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags);
    let mut found = open();
    for _ in 1..LOOKUPS_MAX {
        // The kernel saw a rename beside it and cannot tell whether the path stayed inside.
        if !matches!(found, Err(rustix::io::Errno::AGAIN)) {
            break;
        }
        found = open();
    }
    found
}

fn explain(errno: rustix::io::Errno) -> io::Error {
    match errno {
        rustix::io::Errno::XDEV => io::Error::other("it leads out of the volume"),
        errno => errno.into(),
    }
}

/// Unmounts the parts. Nothing is deleted here but empty mount points.
pub(super) fn release(paths: &ContainerPaths) -> io::Result<()> {
    let entries = match fs::read_dir(paths.sub_paths()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        match umount2(&path, MntFlags::MNT_DETACH) {
            // Never mounted, or with the mount namespace of a shim before this one.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Not with all that is below: were it still mounted, that would be the volume's content.
        let removed = match path.is_dir() {
            true => fs::remove_dir(&path),
            false => fs::remove_file(&path),
        };
        removed?;
    }
    fs::remove_dir(paths.sub_paths())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        openat(
            CWD,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap()
    }

    #[test]
    fn what_is_missing_is_made_with_the_volumes_mode() {
        let volume = tempfile::tempdir().unwrap();
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o711)).unwrap();
        find_or_make(&open(volume.path()), Path::new("a/b")).unwrap();
        let made = fs::metadata(volume.path().join("a/b")).unwrap();
        assert!(made.is_dir());
        assert_eq!(made.mode() & 0o7777, 0o711 & !0o022);
    }

    #[test]
    fn links_may_lead_about_inside_but_not_out() {
        let (volume, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(volume.path().join("real/sub")).unwrap();
        symlink("real", volume.path().join("inside")).unwrap();
        symlink(outside.path(), volume.path().join("absolute")).unwrap();
        symlink("../..", volume.path().join("upwards")).unwrap();
        let root = open(volume.path());
        let check = |part: &str, expected: Result<(), &str>| {
            let found = find_or_make(&root, Path::new(part)).map(drop);
            assert_eq!(
                found.map_err(|error| error.to_string()),
                expected.map_err(str::to_owned),
                "{part}"
            );
        };
        check("inside/sub", Ok(()));
        check("absolute", Err("it leads out of the volume"));
        check("upwards/etc", Err("it leads out of the volume"));
        check("absolute/new", Err("it leads out of the volume"));
        check("../x", Err("it leads out of the volume"));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn no_swap_of_links_beside_the_lookup_leads_out() {
        let (volume, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(outside.path().join("sub")).unwrap();
        let forbidden = fs::metadata(outside.path().join("sub")).unwrap().ino();
        let (place, spare) = (volume.path().join("dir"), volume.path().join("spare"));
        fs::create_dir_all(place.join("sub")).unwrap();
        symlink(outside.path(), &spare).unwrap();
        let done = AtomicBool::new(false);
        let root = open(volume.path());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, &place, CWD, &spare, flags).unwrap();
                }
            });
            let mut inside = 0;
            for _ in 0..20_000 {
                if let Ok(found) = find_or_make(&root, Path::new("dir/sub")) {
                    assert_ne!(fstat(&found).unwrap().st_ino, forbidden);
                    inside += 1;
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(inside > 0, "the lookup never got through");
        });
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
