//! One blob on its way into a file: goes on where a broken transfer stopped, and is verified at the end.

use std::fs::File as StdFile;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _, BufWriter};

use super::image::blocking;
use super::{Counters, PullError};

/// Attempts in a row that bring not a single byte.
const TRIES_MAX: u32 = 5;
/// Before the second attempt; each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Between looks at a download that another pull has in hand.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
const BUFFER_BYTES: usize = 1 << 20;

/// What to download.
pub(super) struct Blob<'a> {
    pub(super) digest: &'a str,
    pub(super) size: Option<u64>,
    pub(super) bytes_max: u64,
    pub(super) counters: &'a Counters,
    /// Where its beginning may lie already.
    pub(super) path: PathBuf,
}

/// A source that has begun to send.
pub(super) struct Opened<'a> {
    /// The offset of the first byte: what was asked for, or 0.
    pub(super) start: u64,
    pub(super) bytes: BoxStream<'a, Result<Bytes, PullError>>,
}

/// Begins to send from an offset on.
pub(super) type Open<'o> = dyn Fn(u64) -> BoxFuture<'o, Result<Opened<'o>, PullError>> + Send + Sync + 'o;

/// A whole, verified blob in a file that nobody else touches.
pub(super) struct Download {
    _locked: StdFile,
    path: PathBuf,
}

impl Download {
    /// Puts the file elsewhere in the store.
    pub(super) fn keep(self, path: &Path) {
        if std::fs::rename(&self.path, path).is_err() {
            self.discard();
        }
    }

    /// Removes the file.
    pub(super) fn discard(self) {
        // One that stays is found whole by the next pull, or collected.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Blob<'_> {
    /// Downloads it, with further attempts when a transfer breaks. None: it is no longer needed, because another pull
    /// had it in hand and has finished.
    pub(super) async fn fetch<'o>(
        &self,
        is_needed: &(dyn Fn() -> bool + Send + Sync),
        open: &Open<'o>,
    ) -> Result<Option<Download>, PullError> {
        let Some(mut partial) = self.lock(is_needed).await? else {
            return Ok(None);
        };
        let (mut tries, mut wait) = (0, FIRST_WAIT);
        while !self.is_whole(&partial) {
            let before = partial.length;
            let Err(error) = self.transfer(&mut partial, open).await else {
                break;
            };
            if partial.length > before {
                (tries, wait) = (0, FIRST_WAIT);
            }
            tries += 1;
            if !error.is_passing() || tries >= TRIES_MAX {
                partial.flush().await?;
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        partial.flush().await?;
        let found = partial.digest();
        if found != self.digest {
            partial.restart(self.counters).await?;
            return Err(PullError::Digest {
                digest: self.digest.to_owned(),
                found,
            });
        }
        Ok(Some(Download {
            _locked: partial.locked,
            path: self.path.clone(),
        }))
    }

    fn is_whole(&self, partial: &Partial) -> bool {
        self.size.is_some_and(|size| partial.length == size)
    }

    async fn transfer<'o>(&self, partial: &mut Partial, open: &Open<'o>) -> Result<(), PullError> {
        let mut opened = open(partial.length).await?;
        if opened.start != partial.length {
            partial.restart(self.counters).await?;
            if opened.start != 0 {
                opened = open(0).await?;
            }
        }
        let max = self.size.unwrap_or(self.bytes_max).min(self.bytes_max);
        while let Some(bytes) = opened.bytes.next().await {
            partial.append(&bytes?, self.counters).await?;
            if partial.length > max {
                let size = partial.length;
                partial.restart(self.counters).await?;
                let digest = self.digest.to_owned();
                return Err(PullError::TooLarge { digest, size, max });
            }
        }
        match self.size {
            Some(size) if partial.length < size => Err(PullError::Short {
                digest: self.digest.to_owned(),
                length: partial.length,
                size,
            }),
            _ => Ok(()),
        }
    }

    /// Waits until no other pull, of this process or another, has the file in hand.
    async fn lock(&self, is_needed: &(dyn Fn() -> bool + Send + Sync)) -> Result<Option<Partial>, PullError> {
        loop {
            let file = StdFile::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&self.path)
                .map_err(|source| self.keep(source))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if !is_needed() => return Ok(None),
                // Its last user may have removed it before letting go.
                Ok(()) if is_same(&file, &self.path) => {
                    let partial = Partial::open(file, self.path.clone(), self.size).await?;
                    self.counters.done.fetch_add(partial.length, Ordering::Relaxed);
                    return Ok(Some(partial));
                }
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_INTERVAL).await,
                Err(error) => return Err(self.keep(error.into())),
            }
        }
    }

    fn keep(&self, source: std::io::Error) -> PullError {
        PullError::Keep {
            path: self.path.clone(),
            source,
        }
    }
}

fn is_same(file: &StdFile, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// The beginning of a blob in a locked file.
struct Partial {
    locked: StdFile,
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    length: u64,
}

impl Partial {
    async fn open(locked: StdFile, path: PathBuf, size: Option<u64>) -> Result<Self, PullError> {
        let keep = |source| PullError::Keep {
            path: path.clone(),
            source,
        };
        let copy = locked.try_clone().map_err(keep)?;
        let (hash, length) = {
            let path = path.clone();
            blocking(move || present(&copy, size).map_err(|source| PullError::Keep { path, source })).await?
        };
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::from_std(locked.try_clone().map_err(keep)?));
        Ok(Self {
            locked,
            path,
            file,
            hash,
            length,
        })
    }

    async fn append(&mut self, bytes: &Bytes, counters: &Counters) -> Result<(), PullError> {
        self.hash.update(bytes);
        let written = self.file.write_all(bytes).await;
        written.map_err(|source| self.keep(source))?;
        self.length += bytes.len() as u64;
        counters.done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Forgets what is there.
    async fn restart(&mut self, counters: &Counters) -> Result<(), PullError> {
        counters.done.fetch_sub(self.length, Ordering::Relaxed);
        let emptied = async {
            self.file.flush().await?;
            self.file.get_mut().set_len(0).await?;
            self.file.seek(SeekFrom::Start(0)).await
        };
        emptied.await.map_err(|source| self.keep(source))?;
        self.hash = Sha256::new();
        self.length = 0;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), PullError> {
        let flushed = self.file.flush().await;
        flushed.map_err(|source| self.keep(source))
    }

    fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(self.hash.clone().finalize()))
    }

    fn keep(&self, source: std::io::Error) -> PullError {
        PullError::Keep {
            path: self.path.clone(),
            source,
        }
    }
}

/// Hashes what is there and leaves the file's position at its end. What is longer than the blob is forgotten.
fn present(mut file: &StdFile, size: Option<u64>) -> std::io::Result<(Sha256, u64)> {
    let length = file.metadata()?.len();
    if size.is_some_and(|size| length > size) {
        file.set_len(0)?;
    }
    file.seek(SeekFrom::Start(0))?;
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((hash, length));
        }
        hash.update(&buffer[..count]);
        length += count as u64;
    }
}
