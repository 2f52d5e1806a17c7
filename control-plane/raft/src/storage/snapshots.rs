//! Snapshots as files of our own.
//!
//! *Guarantees*: a file under its final name is whole: it is written under another name, synced, renamed, and
//! the folder synced. Its checksums are verified before it is used; the image ends with its own.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use flotilla_store::{ReadImageError, Snapshot, read_image, write_image};

use super::{OpenError, record, sync_folder};
use crate::consensus::{self, SnapshotMeta};

const MAGIC: &[u8; 8] = b"FLTSNP01";
const SUFFIX: &str = ".snapshot";
const PARTIAL_SUFFIX: &str = ".partial";
/// A membership of hundreds of servers is far smaller.
const META_BYTES_MAX: u32 = 1 << 20;

/// An open snapshot file. It can be read even after its name is gone.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
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
    path: PathBuf,
    partial_count: AtomicU64,
    /// Held while the newest snapshot changes.
    keeping: Mutex<()>,
}

impl SnapshotFolder {
    /// Opens the folder, removing what was left half done, and reads the newest snapshot.
    pub(crate) fn open(data_dir: &Path) -> Result<(SnapshotFolder, Option<Saved>), OpenError> {
        let path = data_dir.join("snapshots");
        let folder = SnapshotFolder {
            path: path.clone(),
            partial_count: AtomicU64::new(0),
            keeping: Mutex::new(()),
        };
        let newest = folder.prepare().map_err(OpenError::folder(&path))?;
        let Some(newest) = newest else {
            return Ok((folder, None));
        };
        let mut file = File::open(&newest).map_err(OpenError::folder(&newest))?;
        let saved = read_snapshot(&mut file)
            .map_err(|error| OpenError::damaged(data_dir, format!("{}: {error}", newest.display())))?;
        Ok((folder, Some(saved)))
    }

    fn prepare(&self) -> io::Result<Option<PathBuf>> {
        fs::create_dir_all(&self.path)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(PARTIAL_SUFFIX) {
                fs::remove_file(path)?;
            } else if path.to_string_lossy().ends_with(SUFFIX) {
                names.push(path);
            }
        }
        names.sort();
        let newest = names.pop();
        names.into_iter().try_for_each(fs::remove_file)?;
        Ok(newest)
    }

    /// A new file to write a snapshot to.
    pub(crate) fn create_partial(&self) -> io::Result<(PathBuf, File)> {
        let number = self.partial_count.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}{PARTIAL_SUFFIX}"));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok((path, file))
    }

    /// Writes a snapshot and makes it the newest. Blocks.
    pub(crate) fn write(
        &self,
        meta: &SnapshotMeta,
        snapshot: &Snapshot,
        term: u64,
    ) -> io::Result<SnapshotFile> {
        let (partial, file) = self.create_partial()?;
        let mut out = BufWriter::with_capacity(64 << 10, &file);
        let sealed = record::seal(&consensus::encode(meta));
        out.write_all(MAGIC)?;
        out.write_all(&(sealed.len() as u32).to_le_bytes())?;
        out.write_all(&sealed)?;
        write_image(snapshot, term, &mut out)?;
        out.flush()?;
        drop(out);
        let path = self.keep(&partial, &file, meta)?;
        Ok(SnapshotFile {
            path,
            file,
            content: None,
        })
    }

    /// Makes a written file durable and gives it its final name; removes older ones. One that is older than
    /// what is there is removed itself.
    pub(crate) fn keep(&self, partial: &Path, file: &File, meta: &SnapshotMeta) -> io::Result<PathBuf> {
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        let path = self.path.join(format!("{index:020}{SUFFIX}"));
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.newest_path()?.is_some_and(|newest| newest > path) {
            fs::remove_file(partial)?;
            return Ok(path);
        }
        file.sync_all()?;
        fs::rename(partial, &path)?;
        sync_folder(&self.path)?;
        for entry in fs::read_dir(&self.path)? {
            let other = entry?.path();
            if other < path && other.to_string_lossy().ends_with(SUFFIX) {
                fs::remove_file(other)?;
            }
        }
        Ok(path)
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> io::Result<Option<(SnapshotMeta, SnapshotFile)>> {
        // A newer one must not remove it between the look and the opening.
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = self.newest_path()? else {
            return Ok(None);
        };
        let mut file = File::open(&path)?;
        let meta = read_header(&mut file).map_err(io::Error::other)?;
        Ok(Some((
            meta,
            SnapshotFile {
                path,
                file,
                content: None,
            },
        )))
    }

    fn newest_path(&self) -> io::Result<Option<PathBuf>> {
        let mut newest = None;
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(SUFFIX) {
                newest = newest.max(Some(path));
            }
        }
        Ok(newest)
    }
}

/// Reads and verifies a whole snapshot from the start of a file.
pub(crate) fn read_snapshot(file: &mut File) -> Result<Saved, ReadSnapshotError> {
    file.rewind()?;
    let mut input = BufReader::with_capacity(64 << 10, file);
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
