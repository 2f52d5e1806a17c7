//! Writes one entry: a name in a folder that is already opened.
//!
//! No name here has a slash and none is followed if it is a link.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr,
    futimens, makedev, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::EntryType;

use super::{At, UnpackError, is_whiteout, kind_of, text, times};
use crate::tarball::Entry;

/// Where one entry goes: a name in an opened folder.
pub(super) struct Place<'a> {
    pub(super) parent: BorrowedFd<'a>,
    pub(super) name: &'a [u8],
    pub(super) entry: &'a Entry,
}

impl Place<'_> {
    pub(super) fn write_file(&self, content: &mut dyn Read) -> Result<u64, UnpackError> {
        self.clear_the_way()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file =
            File::from(openat(self.parent, self.name, flags, Mode::from_raw_mode(0o600)).at(self.entry)?);
        let bytes = copy(content, &mut file, self.entry)?;
        set_metadata(file.as_fd(), self.entry)?;
        futimens(&file, &times(self.entry.mtime_seconds)).at(self.entry)?;
        Ok(bytes)
    }

    pub(super) fn write_folder(&self) -> Result<(), UnpackError> {
        let present = self.stat()?;
        let is_folder = present
            .as_ref()
            .is_some_and(|stat| kind_of(stat) == FileType::Directory);
        // A folder where this layer removed something hides what the layers below have there.
        let opaque = present.as_ref().is_some_and(is_whiteout);
        if !is_folder {
            self.clear_the_way()?;
            mkdirat(self.parent, self.name, Mode::from_raw_mode(0o700)).at(self.entry)?;
        }
        let folder = self.open_folder()?;
        if opaque {
            make_opaque(folder.as_fd()).at(self.entry)?;
        }
        set_metadata(folder.as_fd(), self.entry)
    }

    pub(super) fn write_symlink(&self) -> Result<(), UnpackError> {
        self.clear_the_way()?;
        symlinkat(&*self.entry.link, self.parent, self.name).at(self.entry)?;
        self.set_owner()?;
        utimensat(
            self.parent,
            self.name,
            &times(self.entry.mtime_seconds),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .at(self.entry)
    }

    pub(super) fn write_node(&self) -> Result<(), UnpackError> {
        let (major, minor) = self.entry.device;
        let (kind, device) = match self.entry.kind {
            EntryType::Fifo => (FileType::Fifo, 0),
            // null, zero, full, random, urandom, tty, ptmx.
            EntryType::Char if matches!((major, minor), (1, 3 | 5 | 7 | 8 | 9) | (5, 0 | 2)) => {
                (FileType::CharacterDevice, makedev(major, minor))
            }
            _ => {
                return Err(UnpackError::Device {
                    path: text(&self.entry.path),
                    major,
                    minor,
                });
            }
        };
        self.clear_the_way()?;
        let mode = Mode::from_raw_mode(self.entry.mode);
        mknodat(self.parent, self.name, kind, mode, device).at(self.entry)?;
        self.set_owner()?;
        chmodat(self.parent, self.name, mode, AtFlags::empty()).at(self.entry)
    }

    /// Marks what the layers below have as removed.
    pub(super) fn write_whiteout(&self, hidden: &[u8]) -> Result<(), UnpackError> {
        if hidden == b".wh..opq" {
            let folder = openat(
                self.parent,
                ".",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            );
            return make_opaque(folder.at(self.entry)?.as_fd()).at(self.entry);
        }
        if hidden.starts_with(b".wh.") {
            // Bookkeeping of aufs, the file system this format comes from.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Outside {
                path: text(&self.entry.path),
            });
        }
        let place = Place {
            name: hidden,
            ..*self
        };
        match place.stat()? {
            None => mknodat(self.parent, hidden, FileType::CharacterDevice, Mode::empty(), 0).at(self.entry),
            Some(stat) if kind_of(&stat) == FileType::Directory => {
                make_opaque(place.open_folder()?.as_fd()).at(self.entry)
            }
            // The layer's own file stands; a file hides what is below it anyway.
            Some(_) => Ok(()),
        }
    }

    /// Removes what an earlier entry put here.
    pub(super) fn clear_the_way(&self) -> Result<(), UnpackError> {
        let flags = match self.stat()? {
            None => return Ok(()),
            Some(stat) if kind_of(&stat) == FileType::Directory => AtFlags::REMOVEDIR,
            Some(_) => AtFlags::empty(),
        };
        unlinkat(self.parent, self.name, flags).at(self.entry)
    }

    fn stat(&self) -> Result<Option<Stat>, UnpackError> {
        match statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).at(self.entry),
        }
    }

    fn open_folder(&self) -> Result<OwnedFd, UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.parent, self.name, flags, Mode::empty()).at(self.entry)
    }

    fn set_owner(&self) -> Result<(), UnpackError> {
        let (uid, gid) = (Uid::from_raw(self.entry.uid), Gid::from_raw(self.entry.gid));
        chownat(
            self.parent,
            self.name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .at(self.entry)
    }
}

/// Sets owner, mode and attributes, in this order: a change of owner clears set-uid bits and capabilities.
pub(super) fn set_metadata(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), UnpackError> {
    fchown(
        file,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
    .at(entry)?;
    fchmod(file, Mode::from_raw_mode(entry.mode)).at(entry)?;
    for (name, value) in &entry.xattrs {
        // All others are left out, above all trusted.overlay.*, which could redirect overlayfs to any folder.
        if name == "security.capability" || name.starts_with("user.") && !name.starts_with("user.overlay.") {
            fsetxattr(file, name.as_str(), value, XattrFlags::empty()).at(entry)?;
        }
    }
    Ok(())
}

fn copy(content: &mut dyn Read, file: &mut File, entry: &Entry) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        // Errors of the two sides are kept apart: one is a bad archive, the other a full disk.
        let count = content.read(&mut buffer)?;
        if count == 0 {
            return Ok(total);
        }
        file.write_all(&buffer[..count]).at(entry)?;
        total += count as u64;
    }
}

fn make_opaque(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    fsetxattr(folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())
}
