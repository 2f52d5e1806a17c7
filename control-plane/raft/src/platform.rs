//! What a replica needs of the machine that it runs on: a disk, threads, and a way to other servers.
//!
//! A real machine gives sled, files, threads and gRPC ([`Platform::real`]). `tests/sim` gives simulated ones, so
//! that a whole cluster runs in one process on virtual time. Nothing else in this crate knows the difference.

mod files;
mod sled;
mod threads;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

pub use self::files::RealFiles;
pub use self::sled::SledTrees;
pub use self::threads::RealThreads;
use crate::network::{GrpcTransport, PeerConnector, Transport};

/// What a replica needs of the machine that it runs on. Cheap to clone.
#[derive(Clone)]
pub struct Platform {
    /// The way to other servers.
    pub transport: Arc<dyn Transport>,
    /// Sorted maps on the disk: the log lies in one.
    pub trees: Arc<dyn Trees>,
    /// Files on the disk: snapshots, and how far the log was committed.
    pub files: Arc<dyn Files>,
    /// Where blocking work is done.
    pub threads: Arc<dyn Threads>,
    /// Who is told what the replica does; nobody, outside of tests.
    pub witness: Option<Arc<dyn Witness>>,
}

impl Platform {
    /// The real thing: sled, files and threads of this machine, and gRPC over the connector's channels.
    pub fn real(connector: PeerConnector) -> Platform {
        Platform {
            transport: Arc::new(GrpcTransport::new(connector)),
            trees: Arc::new(SledTrees),
            files: Arc::new(RealFiles),
            threads: Arc::new(RealThreads),
            witness: None,
        }
    }

    /// Does work that blocks where it stops nothing else.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let run = self.threads.run(Box::new(move || {
            // Nobody waits for it any more: the caller was dropped.
            let _ = done.send(work());
        }));
        run.await?;
        result.await.map_err(io::Error::other)
    }
}

/// One change of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key.
    Remove(Bytes),
}

/// Why a tree cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenTreeError {
    /// The disk does not give it out.
    #[error("the tree cannot be read")]
    Io(#[from] io::Error),
    /// What is there is not what was written.
    #[error("the tree is damaged: {0}")]
    Damaged(String),
}

/// Opens trees.
pub trait Trees: Send + Sync {
    /// Opens the tree in a folder; makes it when there is none. Blocks.
    fn open(&self, folder: &Path, cache_bytes: u64) -> Result<Arc<dyn Tree>, OpenTreeError>;

    /// Whether there is a tree, or the beginning of one, in the folder. Blocks.
    fn exists(&self, folder: &Path) -> bool;

    /// Removes the tree in a folder, which nobody has open, and the folder; there may be none. Blocks.
    fn remove(&self, folder: &Path) -> io::Result<()>;
}

/// Keys and values of a [`Tree`], in order.
pub type TreeRange = Box<dyn Iterator<Item = io::Result<(Bytes, Bytes)>> + Send>;

/// A sorted map on a disk.
///
/// *Guarantees*: what was applied before a [`Tree::sync`] that succeeded survives a power cut. Of what was applied
/// later any part may survive, but of one batch all or nothing.
pub trait Tree: Send + Sync {
    /// The value of a key. Blocks.
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>>;

    /// The keys of a range, with their values. Blocks, as the iterator does.
    fn range(&self, keys: Range<Bytes>) -> TreeRange;

    /// Whether there is no key. Blocks.
    fn is_empty(&self) -> bool;

    /// What its files take of the disk.
    fn bytes_on_disk(&self) -> io::Result<u64>;

    /// Makes changes together; readers see them when it returns. May block while it is polled.
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, io::Result<()>>;

    /// Makes what was applied durable. May block while it is polled.
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;
}

/// Works with files. Everything blocks.
pub trait Files: Send + Sync + Debug {
    /// Makes a folder, and those above it, that nobody else may read: secrets are in there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// The files in a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a new file.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file, or makes it when there is none.
    fn open_or_create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file to read it. It can be read on when its name is gone.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in the same folder; it has it after a power cut, too.
    fn rename_durably(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// What a file takes of the disk.
    fn bytes_on_disk(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. Everything blocks.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to the length of the buffer; zero at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of it; a later [`DiskFile::sync`] makes it durable.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
}

/// Waits until a task of [`Threads::start`] has ended. Blocks.
pub type Join = Box<dyn FnOnce() + Send>;

/// Where blocking work is done.
pub trait Threads: Send + Sync {
    /// Does some work, and returns once it is done.
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, io::Result<()>>;

    /// Starts a task that may block while it is polled, and that ends by itself.
    fn start(&self, name: &str, task: BoxFuture<'static, ()>) -> io::Result<Join>;
}

/// Which entry of a log: its index, and whose it is. openraft 0.9 may have two leaders in one term, one after the
/// other, whose entries are told apart by the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The term.
    pub term: u64,
    /// The member that led.
    pub leader: u64,
    /// The index.
    pub index: u64,
}

/// Is told what a replica does, to check it.
pub trait Witness: Send + Sync {
    /// An entry was added to the log, after another unless it is the first. `content` is what the disk gets of it.
    fn appended(&self, previous: Option<Place>, place: Place, content: &[u8]);

    /// An entry was applied; `after` is the state with it.
    fn applied(&self, term: u64, index: u64, after: &flotilla_store::Snapshot);
}
