//! Makes a new cluster's first server out of a snapshot: its data folder, before any server runs on it.
//!
//! The new server has the old cluster's objects and keys, so that what clients and nodes hold stays good, but an
//! identity of its own; the old cluster's servers are no members of it and are told so if they meet it.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use flotilla_backup::{Backup, Header, KindCount, ReadBackupError, Summary};
use flotilla_pki::{ClientTls, ClusterCa, channel, create_private_folder};
use flotilla_raft::{FoundError, Founding, Platform};

use crate::material::{self, MaterialError};
use crate::reset::new_cluster;

/// What to make, and out of what.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The snapshot.
    pub file: PathBuf,
    /// The new server's data folder: absent or empty.
    pub data_dir: PathBuf,
    /// The new server's name.
    pub name: String,
}

/// The new server tells its address itself when it starts.
const NO_ADDRESS: &str = "127.0.0.1:6443";

/// What was made.
#[derive(Debug)]
pub struct Restored {
    /// What was read.
    pub backup: Backup,
    /// The identity of the new cluster.
    pub cluster: String,
    /// The revision at which the new cluster goes on.
    pub revision: u64,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The snapshot.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what was saved.
    #[error("cannot restore {path}")]
    Read {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadBackupError,
    },
    /// Something is there already.
    #[error(
        "{path} is not empty: restore into a new folder, or move what is there away. A server never mixes two clusters"
    )]
    Occupied {
        /// The data folder.
        path: PathBuf,
    },
    /// The data folder cannot be used.
    #[error("cannot use the folder {path}")]
    Folder {
        /// The data folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keys cannot be used.
    #[error("cannot restore the cluster's keys")]
    Keys(#[from] MaterialError),
    /// The store cannot be made.
    #[error("cannot make the store in {path}")]
    Store {
        /// The data folder.
        path: PathBuf,
        /// Why.
        source: FoundError,
    },
}

/// Reads a whole snapshot and checks it. Blocks.
pub fn read_snapshot(path: &Path) -> Result<Backup, RestoreError> {
    let file = File::open(path).map_err(|source| RestoreError::Open {
        path: path.to_owned(),
        source,
    })?;
    flotilla_backup::read(BufReader::with_capacity(1 << 20, file)).map_err(|source| RestoreError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Makes the data folder.
///
/// *Guarantees*: nothing is written before the whole snapshot was found in order. The member's record is written
/// last: a restoration that was cut short leaves a folder that no server starts on as a member.
pub async fn restore(options: &RestoreOptions) -> Result<Restored, RestoreError> {
    let backup = read_snapshot(&options.file)?;
    let folder = |source| RestoreError::Folder {
        path: options.data_dir.clone(),
        source,
    };
    if !is_vacant(&options.data_dir).map_err(folder)? {
        return Err(RestoreError::Occupied {
            path: options.data_dir.clone(),
        });
    }
    create_private_folder(&options.data_dir).map_err(folder)?;
    let keys = &backup.keys;
    let ca = ClusterCa::load(&keys.ca_certificate, &keys.ca_key).map_err(MaterialError::from)?;
    let member = material::Member::new(&options.name);
    let founding = Founding {
        id: member.id,
        name: options.name.clone(),
        address: NO_ADDRESS.to_owned(),
        cluster: new_cluster(),
        former: vec![backup.header.cluster.clone()],
        objects: backup.objects.clone(),
        term: backup.header.term,
    };
    let cluster = founding.cluster.clone();
    // Nobody is called: the folder is all that is made.
    let tls = ClientTls::anonymous(&keys.ca_certificate).map_err(MaterialError::from)?;
    let platform = Platform::real(Arc::new(move |address| channel(address, &tls)));
    let founded = flotilla_raft::found(&platform, &options.data_dir.join("store"), founding).await;
    let revision = founded.map_err(|source| RestoreError::Store {
        path: options.data_dir.clone(),
        source,
    })?;
    material::save(&options.data_dir, &ca, &keys.service_account_key, &member)?;
    Ok(Restored {
        backup,
        cluster,
        revision: revision.0,
    })
}

fn is_vacant(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
