//! How much of a disk the files below a folder take.
//!
//! Containers may change the folder while it is walked. *Guarantees*: no link is followed and no mount is entered,
//! whatever becomes of a folder between being seen and being opened; the descriptors in use are bounded.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::rc::Rc;

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat,
};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
/// A path this long becomes the start of further ones, well before the kernel refuses it.
const PATH_MAX: usize = 2048;
/// How often that may happen on the way to one folder. What lies deeper (128 KiB of path) is not seen.
const STARTS_MAX: u32 = 64;

/// What files take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes that are really taken: holes in files are not, nor is a file twice that has two names.
    pub bytes: u64,
    /// Files and folders.
    pub inodes: u64,
}

impl std::ops::AddAssign for DiskUsage {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

impl std::iter::Sum for DiskUsage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

/// Counts the folder and all below it; nothing when it is not there. `is_over` is asked now and then whether the answer
/// is still wanted.
pub fn disk_usage(folder: &Path, is_over: &dyn Fn() -> bool) -> io::Result<DiskUsage> {
    let root = match openat(CWD, folder, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(DiskUsage::default()),
        opened => opened?,
    };
    let top = fstat(&root)?;
    let mut walk = Walk {
        device: top.st_dev,
        seen: HashSet::new(),
        total: DiskUsage::default(),
        left: vec![Folder {
            start: Rc::new(root),
            path: Vec::new(),
            starts: 0,
        }],
    };
    walk.count(&top);
    while let Some(folder) = walk.left.pop() {
        if is_over() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        walk.enter(&folder);
    }
    Ok(walk.total)
}

/// A folder that is still to be looked at.
struct Folder {
    start: Rc<OwnedFd>,
    /// From `start`; empty for itself.
    path: Vec<u8>,
    starts: u32,
}

struct Walk {
    device: u64,
    /// Files with several names that were counted.
    seen: HashSet<u64>,
    total: DiskUsage,
    left: Vec<Folder>,
}

impl Walk {
    fn count(&mut self, found: &Stat) {
        let is_file = FileType::from_raw_mode(found.st_mode) != FileType::Directory;
        if is_file && found.st_nlink > 1 && !self.seen.insert(found.st_ino) {
            return;
        }
        self.total += DiskUsage {
            bytes: u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512),
            inodes: 1,
        };
    }

    /// What cannot be opened has just gone, has become a link, or is a mount.
    fn enter(&mut self, folder: &Folder) {
        if folder.path.is_empty() {
            let start = folder.start.clone();
            return self.list(folder, &start);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let opened = openat2(&*folder.start, &*folder.path, FOLDER, Mode::empty(), resolve);
        let Ok(opened) = opened else { return };
        if folder.path.len() <= PATH_MAX {
            self.list(folder, &opened);
        } else if folder.starts < STARTS_MAX {
            self.left.push(Folder {
                start: Rc::new(opened),
                path: Vec::new(),
                starts: folder.starts + 1,
            });
        }
    }

    fn list(&mut self, folder: &Folder, opened: &OwnedFd) {
        let Ok(entries) = Dir::read_from(opened) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(found) = statat(opened, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) else {
                continue;
            };
            if found.st_dev != self.device {
                continue;
            }
            self.count(&found);
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                self.left.push(folder.below(name.to_bytes()));
            }
        }
    }
}

impl Folder {
    fn below(&self, name: &[u8]) -> Folder {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Folder {
            start: self.start.clone(),
            path,
            starts: self.starts,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{mkdirat, openat};

    use super::*;
    use crate::mounting::{mount_new, unmount};

    fn usage(path: &Path) -> DiskUsage {
        disk_usage(path, &|| false).unwrap()
    }

    #[test]
    fn what_is_really_taken_counts_once_and_links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        assert_eq!(usage(&root), DiskUsage::default());
        fs::create_dir_all(root.join("a/b")).unwrap();
        let empty = usage(&root);
        assert_eq!(empty.inodes, 3);
        fs::write(root.join("a/b/data"), vec![1; 100_000]).unwrap();
        fs::hard_link(root.join("a/b/data"), root.join("again")).unwrap();
        symlink("/", root.join("a/link")).unwrap();
        fs::File::create(root.join("hole"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        let full = usage(&root);
        assert_eq!(full.inodes, 6);
        let data = full.bytes - empty.bytes;
        assert!((100_000..200_000).contains(&data), "{data}");
        let stopped = disk_usage(&root, &|| true).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_link_in_the_place_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("/", &link).unwrap();
        assert!(disk_usage(&link, &|| false).is_err());
    }

    #[test]
    fn what_is_mounted_below_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        let before = usage(folder.path()).inodes;
        mount_new("tmpfs", &other, nix::mount::MsFlags::empty(), "").unwrap();
        fs::write(other.join("file"), vec![1; 1 << 20]).unwrap();
        let mounted = usage(folder.path());
        unmount(&other).unwrap();
        assert!(mounted.bytes < 1 << 20, "{mounted:?}");
        assert_eq!(mounted.inodes, before - 1);
    }

    #[test]
    fn what_lies_deeper_than_any_path_reaches_counts_too() {
        let folder = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let mut at = openat(CWD, folder.path(), FOLDER, Mode::empty()).unwrap();
        for _ in 0..60 {
            mkdirat(&at, &*name, Mode::RWXU).unwrap();
            at = openat(&at, &*name, FOLDER, Mode::empty()).unwrap();
        }
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = openat(&at, "deep", write, Mode::RWXU).unwrap();
        rustix::io::write(&file, &[1; 10_000]).unwrap();
        let found = usage(folder.path());
        assert_eq!(found.inodes, 62);
        // The standard library removes it by relative steps as well.
        folder.close().unwrap();
    }
}
