//! The files of one log, across rotation.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::parse;

/// A log has two older parts; between two looks a rotation may make one more appear.
const PARTS_MAX: u32 = 3;

/// How much of a file's end is read first to find its last lines.
const WINDOW_BYTES: u64 = 64 << 10;

/// One file of a log, and how far it has been read.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Arc<File>,
    /// Device and inode: a file keeps them when it is put aside.
    pub(super) id: (u64, u64),
    pub(super) position: u64,
}

impl Part {
    fn open(path: &Path) -> io::Result<Option<Part>> {
        match File::open(path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                Ok(Some(Part {
                    file: Arc::new(file),
                    id: (metadata.dev(), metadata.ino()),
                    position: 0,
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Opens the files of the log at `path`, oldest first, from where its last `tail` lines begin.
pub(super) fn open(path: &Path, tail: Option<u64>) -> io::Result<VecDeque<Part>> {
    let mut parts = newer_than(path, (0, 0))?;
    if let Some(wanted) = tail {
        skip_to_tail(&mut parts, wanted)?;
    }
    Ok(parts)
}

/// The parts that are newer than the one called `id`, oldest first; all of them when it is gone.
pub(super) fn newer_than(path: &Path, id: (u64, u64)) -> io::Result<VecDeque<Part>> {
    let mut parts = VecDeque::<Part>::new();
    let names =
        std::iter::once(PathBuf::from(path)).chain((1..=PARTS_MAX).map(|number| super::part(path, number)));
    // From new to old: a rotation meanwhile shows a file a second time, but hides none.
    for name in names {
        let Some(part) = Part::open(&name)? else { continue };
        if part.id == id {
            break;
        }
        if parts.iter().all(|known| known.id != part.id) {
            parts.push_front(part);
        }
    }
    Ok(parts)
}

fn skip_to_tail(parts: &mut VecDeque<Part>, wanted: u64) -> io::Result<()> {
    let mut missing = wanted;
    for index in (0..parts.len()).rev() {
        let part = &mut parts[index];
        let size = part.file.metadata()?.len();
        let (found, position) = find_tail(&part.file, size, missing)?;
        part.position = position;
        missing -= found;
        if missing == 0 {
            // The line may have begun in an older part; then its first piece is missing, as after rotation.
            parts.drain(..index);
            break;
        }
    }
    Ok(())
}

/// How many of the last `wanted` lines are in the file, and where they begin.
fn find_tail(file: &File, size: u64, wanted: u64) -> io::Result<(u64, u64)> {
    if wanted == 0 {
        return Ok((0, size));
    }
    let mut window = WINDOW_BYTES;
    loop {
        let start = size.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(size - start).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        let begins = line_begins(&bytes, start == 0);
        let found = begins.len() as u64;
        if found >= wanted {
            return Ok((wanted, start + begins[begins.len() - wanted as usize] as u64));
        }
        if start == 0 {
            return Ok((found, 0));
        }
        window *= 4;
    }
}

/// Where the container's lines begin; those of a window in the middle of a file only after the first end.
fn line_begins(bytes: &[u8], is_whole: bool) -> Vec<usize> {
    let mut begins = Vec::new();
    let mut begin = is_whole.then_some(0);
    let mut position = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if position > 0 || is_whole {
            begins.extend(begin.take());
        }
        position += line.len();
        let ends = parse(line).is_some_and(|entry| !entry.is_partial);
        // The first line of a window is cut somewhere, maybe in its tag.
        if ends && (is_whole || position > line.len()) {
            begin = Some(position);
        }
    }
    begins
}
