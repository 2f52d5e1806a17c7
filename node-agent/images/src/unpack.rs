//! Writes the entries of a layer into a folder, and nowhere else.
//!
//! *Guarantees*: every path is resolved by the kernel with the layer's folder as its root (`openat2`,
//! `RESOLVE_IN_ROOT`), so neither `..`, nor absolute names, nor symbolic links lead outside. Whiteouts become what
//! overlayfs understands. Device nodes are refused, but for those that lead nowhere.
//! *Assumes*: nobody else writes to the folder.

mod place;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, linkat, mkdirat, open,
    openat, openat2, utimensat,
};
use rustix::io::Errno;
use tar::EntryType;

use self::place::{Place, set_metadata};
use crate::tarball::{self, Entry};

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry has `..` in its name or an empty name where one is needed.
    #[error("entry {path:?} does not name a place inside the layer")]
    Outside {
        /// The entry's name.
        path: String,
    },
    /// `/dev`, `/proc` or `/sys` would be a symbolic link, through which mounts would land elsewhere.
    #[error("entry {path:?} makes a system folder a symbolic link")]
    SystemLink {
        /// The entry's name.
        path: String,
    },
    /// A device node that gives access to hardware.
    #[error("entry {path:?} is the device node {major}:{minor}")]
    Device {
        /// The entry's name.
        path: String,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// An entry of a kind that no layer needs.
    #[error("entries of kind {kind} are not supported")]
    Kind {
        /// The kind.
        kind: String,
    },
    /// More entries than allowed.
    #[error("the layer has more than {max} entries")]
    TooManyEntries {
        /// The limit.
        max: u64,
    },
    /// An entry could not be written.
    #[error("cannot write entry {path:?}")]
    Write {
        /// The entry's name.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The stream could not be read: it is damaged, or larger than allowed.
    #[error("cannot read the layer")]
    Read(#[from] io::Error),
}

/// Unpacks a tar stream into an empty folder and returns how many bytes its files have.
pub(crate) fn unpack(stream: impl Read, folder: &Path, entries_max: u64) -> Result<u64, UnpackError> {
    let mut layer = Layer::open(folder)?;
    tarball::for_each(stream, entries_max, |entry, content| layer.add(entry, content))?;
    layer.finish()?;
    Ok(layer.bytes)
}

/// The folder that a layer is unpacked into.
struct Layer {
    root: OwnedFd,
    root_stat: Stat,
    /// The folder of the previous entry: archives list a folder's files one after the other.
    recent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of folders, set at the end because every new file changes them.
    folder_times: Vec<(Vec<u8>, i64)>,
    bytes: u64,
}

impl Layer {
    fn open(folder: &Path) -> Result<Self, UnpackError> {
        let root = open(
            folder,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(io::Error::from)?;
        let root_stat = rustix::fs::fstat(&root).map_err(io::Error::from)?;
        Ok(Self {
            root,
            root_stat,
            recent: None,
            folder_times: Vec::new(),
            bytes: 0,
        })
    }

    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), UnpackError> {
        let path = clean(&entry.path)?;
        let Some((folder, name)) = split(&path) else {
            return self.set_root_metadata(entry);
        };
        let parent = self.folder(folder, entry)?;
        let place = Place {
            parent: parent.as_fd(),
            name,
            entry,
        };
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            place.write_whiteout(hidden)?;
        } else {
            self.bytes += self.write(&place, content)?;
            if entry.kind == EntryType::Directory {
                self.folder_times.push((path.clone(), entry.mtime_seconds));
            }
        }
        // A link or a replaced folder may lead elsewhere from now on; files and folders below the same parent do not.
        let keep = matches!(entry.kind, EntryType::Regular | EntryType::Link);
        self.recent = keep.then(|| (folder.to_owned(), parent));
        Ok(())
    }

    fn write(&self, place: &Place<'_>, content: &mut dyn Read) -> Result<u64, UnpackError> {
        match place.entry.kind {
            EntryType::Regular | EntryType::Continuous => place.write_file(content),
            EntryType::Directory => place.write_folder().map(|()| 0),
            EntryType::Symlink => {
                let parent = rustix::fs::fstat(place.parent).at(place.entry)?;
                let at_root =
                    (parent.st_dev, parent.st_ino) == (self.root_stat.st_dev, self.root_stat.st_ino);
                if at_root && matches!(place.name, b"dev" | b"proc" | b"sys") {
                    return Err(UnpackError::SystemLink {
                        path: text(&place.entry.path),
                    });
                }
                place.write_symlink().map(|()| 0)
            }
            EntryType::Link => self.write_hard_link(place).map(|()| 0),
            EntryType::Fifo | EntryType::Char | EntryType::Block => place.write_node().map(|()| 0),
            kind => Err(UnpackError::Kind {
                kind: format!("{kind:?}"),
            }),
        }
    }

    fn write_hard_link(&self, place: &Place<'_>) -> Result<(), UnpackError> {
        let target = clean(&place.entry.link)?;
        let (folder, name) = split(&target).ok_or_else(|| UnpackError::Outside {
            path: text(&place.entry.link),
        })?;
        let from = if folder.is_empty() {
            self.root.try_clone().at(place.entry)?
        } else {
            self.resolve(folder).at(place.entry)?
        };
        place.clear_the_way()?;
        // Without AT_SYMLINK_FOLLOW a symbolic link is linked itself, never what it points at.
        linkat(from, name, place.parent, place.name, AtFlags::empty()).at(place.entry)
    }

    /// Opens a folder of the layer, making what is missing on the way.
    fn folder(&mut self, folder: &[u8], entry: &Entry) -> Result<OwnedFd, UnpackError> {
        match self.recent.take() {
            Some((path, fd)) if path == folder => return Ok(fd),
            _ if folder.is_empty() => return self.root.try_clone().at(entry),
            _ => {}
        }
        match self.resolve(folder) {
            Err(Errno::NOENT) => {}
            found => return found.at(entry),
        }
        let mut parent = self.root.try_clone().at(entry)?;
        let ends = (0..folder.len())
            .filter(|&at| folder[at] == b'/')
            .chain([folder.len()]);
        for end in ends {
            let path = &folder[..end];
            parent = match self.resolve(path) {
                Err(Errno::NOENT) => {
                    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
                    mkdirat(&parent, name, Mode::from_raw_mode(0o755)).at(entry)?;
                    self.resolve(path).at(entry)?
                }
                found => found.at(entry)?,
            };
        }
        Ok(parent)
    }

    fn resolve(&self, folder: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match openat2(&self.root, folder, flags, Mode::empty(), resolve) {
                // The kernel asks to try again when something was renamed meanwhile, anywhere on the machine.
                Err(Errno::AGAIN) => {}
                found => return found,
            }
        }
    }

    fn set_root_metadata(&self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != EntryType::Directory {
            return Err(UnpackError::Outside {
                path: text(&entry.path),
            });
        }
        let root = openat(
            &self.root,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .at(entry)?;
        set_metadata(root.as_fd(), entry)
    }

    fn finish(&self) -> Result<(), UnpackError> {
        for (path, seconds) in self.folder_times.iter().rev() {
            let Some((folder, name)) = split(path) else {
                continue;
            };
            let parent = if folder.is_empty() {
                self.root.try_clone()?
            } else {
                match self.resolve(folder) {
                    Ok(parent) => parent,
                    // A later entry replaced it by something else.
                    Err(_) => continue,
                }
            };
            match utimensat(parent, name, &times(*seconds), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }
}

/// True for the character device 0:0, by which overlayfs knows a removed file.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind_of(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// A path without empty and `.` components and without the slash in front. `..` is refused.
fn clean(path: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut clean = Vec::with_capacity(path.len());
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(UnpackError::Outside { path: text(path) }),
            _ => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(component);
            }
        }
    }
    Ok(clean)
}

/// Folder and name of a clean path; `None` for the root itself.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => Some((&path[..at], &path[at + 1..])),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Names the entry in an error of the system.
trait At<T> {
    fn at(self, entry: &Entry) -> Result<T, UnpackError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, entry: &Entry) -> Result<T, UnpackError> {
        self.map_err(|error| UnpackError::Write {
            path: text(&entry.path),
            source: error.into(),
        })
    }
}

/// Opens a path of an unpacked layer for reading, with the layer as the root of every link.
pub(crate) fn open_in_layer(layer: &Path, path: &str) -> Result<File, Errno> {
    let folder = openat(
        CWD,
        layer,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat2(folder, path, flags, Mode::empty(), resolve).map(File::from)
}

#[cfg(test)]
mod tests;
