//! Reads members of an OCI layout folder or of a tar archive, in any order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use tar::EntryType;

use crate::layer::decompress;

/// An archive has a few members per layer, so this is far above any honest one.
const MEMBERS_MAX: usize = 100_000;
/// Docker archives of old point from one image's `layer.tar` to another's; chains are short.
const LINKS_MAX: usize = 8;

/// An opened image archive.
pub(crate) enum Archive {
    /// A folder.
    Folder(OwnedFd),
    /// A tar file with the places of its members.
    Tar {
        file: File,
        members: HashMap<String, Member>,
    },
}

/// Where a member of a tar file lies.
pub(crate) enum Member {
    Bytes { start: u64, size: u64 },
    Link(String),
}

impl Archive {
    /// Opens a folder, a tar, or a tar compressed as a whole, which is decompressed into `scratch` first.
    pub(crate) fn open(path: &Path, scratch: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if file.metadata()?.is_dir() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Ok(Self::Folder(open(path, flags, Mode::empty())?));
        }
        let mut start = [0; 4];
        let count = file.read(&mut start)?;
        file.rewind()?;
        if start[..count].starts_with(&[0x1f, 0x8b]) || start[..count] == [0x28, 0xb5, 0x2f, 0xfd] {
            file = decompress_all(file, scratch, bytes_max)?;
        }
        let members = list_members(&mut file)?;
        Ok(Self::Tar { file, members })
    }

    /// Opens a member; `None` when there is none of this name.
    pub(crate) fn member(&self, name: &str) -> io::Result<Option<Box<dyn Read + '_>>> {
        match self {
            Self::Folder(folder) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                match openat2(
                    folder,
                    name,
                    flags,
                    Mode::empty(),
                    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
                ) {
                    Ok(file) => {
                        let file = File::from(file);
                        let is_file = file.metadata()?.is_file();
                        Ok(is_file.then(|| Box::new(file) as Box<dyn Read>))
                    }
                    Err(rustix::io::Errno::NOENT) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Self::Tar { file, members } => {
                let mut name = clean(name);
                for _ in 0..LINKS_MAX {
                    match members.get(&name) {
                        None => return Ok(None),
                        Some(Member::Link(target)) => name = target.clone(),
                        Some(&Member::Bytes { start, size }) => {
                            return Ok(Some(Box::new(Span {
                                file,
                                at: start,
                                end: start + size,
                            })));
                        }
                    }
                }
                Ok(None)
            }
        }
    }
}

fn decompress_all(file: File, scratch: &Path, bytes_max: u64) -> io::Result<File> {
    let mut plain = tempfile::tempfile_in(scratch)?;
    let mut stream = decompress(file).map_err(io::Error::other)?.take(bytes_max + 1);
    if io::copy(&mut stream, &mut plain)? > bytes_max {
        return Err(io::Error::other(format!(
            "the archive has more than {bytes_max} bytes once decompressed"
        )));
    }
    plain.rewind()?;
    Ok(plain)
}

fn list_members(file: &mut File) -> io::Result<HashMap<String, Member>> {
    let mut members = HashMap::new();
    let mut archive = tar::Archive::new(file);
    // Raw: records with long names would be read into memory whatever their size, and no member needs one.
    for entry in archive.entries_with_seek()?.raw(true) {
        let entry = entry?;
        if members.len() >= MEMBERS_MAX {
            return Err(io::Error::other(format!(
                "the archive has more than {MEMBERS_MAX} members"
            )));
        }
        let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else {
            continue;
        };
        let name = clean(&name);
        let target = || {
            let target = entry
                .link_name_bytes()
                .and_then(|bytes| String::from_utf8(bytes.into_owned()).ok());
            target.unwrap_or_default()
        };
        let member = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => Member::Bytes {
                start: entry.raw_file_position(),
                size: entry.size(),
            },
            EntryType::Link => Member::Link(clean(&target())),
            EntryType::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                Member::Link(clean(&format!("{folder}/{}", target())))
            }
            _ => continue,
        };
        members.insert(name, member);
    }
    Ok(members)
}

/// A name without `.`, `..` and empty components; it is looked up in a table, never in a file system.
fn clean(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// Part of a file, read without moving the file's own position.
struct Span<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Span<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive ends in the middle of a member",
            ));
        }
        self.at += count as u64;
        Ok(count)
    }
}
