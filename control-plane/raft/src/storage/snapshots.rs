//! Snapshots as files of our own.
//!
//! *Guarantees*: a file under its final name is whole: it is written under another name, synced, renamed, and
//! the folder synced. Its checksums are verified before it is used; the image ends with its own.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flotilla_store::{ReadImageError, Snapshot, read_image, write_image};

use super::{OpenError, record};
use crate::consensus::{self, SnapshotMeta};
use crate::platform::{DiskFile, Files};

const MAGIC: &[u8; 8] = b"FLTSNP01";
const SUFFIX: &str = ".snapshot";
const PARTIAL_SUFFIX: &str = ".partial";
/// A membership of hundreds of servers is far smaller.
const META_BYTES_MAX: u32 = 1 << 20;

/// An open snapshot file. It can be read even after its name is gone.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) file: Box<dyn DiskFile>,
    /// What is in it, when it was just received and read.
    pub(crate) content: Option<Saved>,
}

/// What a snapshot holds.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) meta: SnapshotMeta,
    pub(crate) objects: Snapshot,
    /// The newest term that was applied before it was taken.
    pub(crate) term: u64,
}

/// Why a file is not a snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadSnapshotError {
    #[error("the snapshot cannot be read")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Image(#[from] ReadImageError),
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
}

/// The folder that holds the newest snapshot, and those on their way in.
#[derive(Debug)]
pub(crate) struct SnapshotFolder {
    files: Arc<dyn Files>,
    path: PathBuf,
    partial_count: AtomicU64,
    /// Held while the newest snapshot changes.
    keeping: Mutex<()>,
}

impl SnapshotFolder {
    /// Opens the folder, removing what was left half done, and reads the newest snapshot.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        data_dir: &Path,
    ) -> Result<(SnapshotFolder, Option<Saved>), OpenError> {
        let path = data_dir.join("snapshots");
        let folder = SnapshotFolder {
            files,
            path: path.clone(),
            partial_count: AtomicU64::new(0),
            keeping: Mutex::new(()),
        };
        let newest = folder.prepare().map_err(OpenError::folder(&path))?;
        let Some(newest) = newest else {
            return Ok((folder, None));
        };
        let file = folder.files.open(&newest).map_err(OpenError::folder(&newest))?;
        let saved = read_snapshot(&*file)
            .map_err(|error| OpenError::damaged(data_dir, format!("{}: {error}", newest.display())))?;
        Ok((folder, Some(saved)))
    }

    fn prepare(&self) -> io::Result<Option<PathBuf>> {
        self.files.create_folder(&self.path)?;
        let mut names = Vec::new();
        for path in self.files.list(&self.path)? {
            if path.to_string_lossy().ends_with(PARTIAL_SUFFIX) {
                self.files.remove(&path)?;
            } else if path.to_string_lossy().ends_with(SUFFIX) {
                names.push(path);
            }
        }
        names.sort();
        let newest = names.pop();
        names.iter().try_for_each(|older| self.files.remove(older))?;
        Ok(newest)
    }

    /// A new file to write a snapshot to.
    pub(crate) fn create_partial(&self) -> io::Result<(PathBuf, Box<dyn DiskFile>)> {
        let number = self.partial_count.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}{PARTIAL_SUFFIX}"));
        let file = self.files.create_new(&path)?;
        Ok((path, file))
    }

    /// Removes what was not received whole. The next start does it otherwise.
    pub(crate) fn discard(&self, partial: &Path) {
        let _ = self.files.remove(partial);
    }

    /// Writes a snapshot and makes it the newest. Blocks.
    pub(crate) fn write(
        &self,
        meta: &SnapshotMeta,
        snapshot: &Snapshot,
        term: u64,
    ) -> io::Result<SnapshotFile> {
        let (partial, file) = self.create_partial()?;
        let mut out = BufWriter::with_capacity(64 << 10, Sequential::new(&*file));
        let sealed = record::seal(&consensus::encode(meta));
        out.write_all(MAGIC)?;
        out.write_all(&(sealed.len() as u32).to_le_bytes())?;
        out.write_all(&sealed)?;
        write_image(snapshot, term, &mut out)?;
        out.flush()?;
        drop(out);
        self.keep(&partial, &*file, meta)?;
        Ok(SnapshotFile { file, content: None })
    }

    /// Makes a written file durable and gives it its final name; removes older ones. One that is older than
    /// what is there is removed itself.
    pub(crate) fn keep(&self, partial: &Path, file: &dyn DiskFile, meta: &SnapshotMeta) -> io::Result<()> {
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        let path = self.path.join(format!("{index:020}{SUFFIX}"));
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.newest_path()?.is_some_and(|newest| newest > path) {
            return self.files.remove(partial);
        }
        file.sync()?;
        self.files.rename_durably(partial, &path)?;
        for other in self.files.list(&self.path)? {
            if other < path && other.to_string_lossy().ends_with(SUFFIX) {
                self.files.remove(&other)?;
            }
        }
        Ok(())
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> io::Result<Option<(SnapshotMeta, SnapshotFile)>> {
        // A newer one must not remove it between the look and the opening.
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = self.newest_path()? else {
            return Ok(None);
        };
        let file = self.files.open(&path)?;
        let meta = read_header(&mut Sequential::new(&*file)).map_err(io::Error::other)?;
        Ok(Some((meta, SnapshotFile { file, content: None })))
    }

    /// What the snapshots take of the disk, without those that are on their way.
    pub(crate) fn bytes_on_disk(&self) -> io::Result<u64> {
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.files.list(&self.path)?.into_iter();
        kept.filter(|path| path.to_string_lossy().ends_with(SUFFIX))
            .map(|path| self.files.bytes_on_disk(&path))
            .sum()
    }

    fn newest_path(&self) -> io::Result<Option<PathBuf>> {
        let mut newest = None;
        for path in self.files.list(&self.path)? {
            if path.to_string_lossy().ends_with(SUFFIX) {
                newest = newest.max(Some(path));
            }
        }
        Ok(newest)
    }
}

/// Reads and verifies a whole snapshot from the start of a file.
pub(crate) fn read_snapshot(file: &dyn DiskFile) -> Result<Saved, ReadSnapshotError> {
    let mut input = BufReader::with_capacity(64 << 10, Sequential::new(file));
    let meta = read_header(&mut input)?;
    let (objects, term) = read_image(&mut input)?;
    Ok(Saved { meta, objects, term })
}

fn read_header(input: &mut impl Read) -> Result<SnapshotMeta, ReadSnapshotError> {
    let mut magic = [0; 8];
    input.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(ReadSnapshotError::Damaged("it does not start as a snapshot does"));
    }
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > META_BYTES_MAX {
        return Err(ReadSnapshotError::Damaged("its header is too large"));
    }
    let mut sealed = vec![0; length as usize];
    input.read_exact(&mut sealed)?;
    let payload =
        record::unseal(&sealed).ok_or(ReadSnapshotError::Damaged("its header's checksum is wrong"))?;
    consensus::decode(payload).map_err(|_| ReadSnapshotError::Damaged("its header cannot be decoded"))
}

/// Reads or writes a file from its start on.
struct Sequential<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
}

impl<'a> Sequential<'a> {
    fn new(file: &'a dyn DiskFile) -> Sequential<'a> {
        Sequential { file, offset: 0 }
    }
}

impl Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Write for Sequential<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
