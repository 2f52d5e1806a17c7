//! What a replica keeps on its disk: log, vote and snapshots.

mod about;
mod committed;
mod disk;
mod log;
mod machine;
mod record;
mod snapshots;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use about::{About, FIRST_CLUSTER, FORMAT};
pub(crate) use log::LogStore;
pub(crate) use machine::{Machine, applied_to};
pub(crate) use snapshots::{Saved, SnapshotFile, SnapshotFolder, read_snapshot};

use crate::consensus::{LogId, StorageError};

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used.
    #[error("cannot use the folder {path}")]
    Folder {
        /// Which folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is on the disk is not what was written; voting with it could lose acknowledged writes.
    #[error(
        "the data in {path} is damaged ({damage}); a server must not vote with it. Move the folder away and \
         start the server with a join token: it rejoins the cluster as a learner and takes over its old place"
    )]
    Damaged {
        /// The replica's folder.
        path: PathBuf,
        /// What is wrong.
        damage: String,
    },
    /// A later release has written it.
    #[error(
        "the data in {path} has format {found}, and this release of flotilla reads up to {known}: start the release \
         that wrote it, or a later one"
    )]
    Newer {
        /// The replica's folder.
        path: PathBuf,
        /// The format of the folder.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// The folder belongs to another member.
    #[error("the data in {path} belongs to member {found}, not {wanted}")]
    Identity {
        /// The replica's folder.
        path: PathBuf,
        /// The id in the folder.
        found: u64,
        /// The id of the options.
        wanted: u64,
    },
    /// The consensus module refused its configuration or the recovered state.
    #[error("consensus cannot start: {0}")]
    Consensus(String),
}

impl OpenError {
    pub(crate) fn folder(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.to_path_buf();
        move |source| OpenError::Folder { path, source }
    }

    pub(crate) fn damaged(path: &Path, damage: impl Into<String>) -> OpenError {
        OpenError::Damaged {
            path: path.to_path_buf(),
            damage: damage.into(),
        }
    }
}

/// What is on the disk must fit together: no index may be in neither snapshot nor log.
pub(crate) fn check_whole(log: &LogStore, snapshot: Option<LogId>, folder: &Path) -> Result<(), OpenError> {
    let purged = log.purged();
    if purged > snapshot {
        let damage = format!("the log starts after {purged:?}, but the snapshot ends at {snapshot:?}");
        return Err(OpenError::damaged(folder, damage));
    }
    let last = log.last().max(snapshot);
    let committed = log.committed();
    if committed > last {
        let damage = format!("{committed:?} was committed, but the log ends at {last:?}");
        return Err(OpenError::damaged(folder, damage));
    }
    Ok(())
}

fn io_error(
    subject: openraft::ErrorSubject<u64>,
    verb: openraft::ErrorVerb,
    error: &io::Error,
) -> StorageError {
    openraft::StorageIOError::new(subject, verb, openraft::AnyError::new(error)).into()
}
