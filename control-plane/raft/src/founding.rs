//! Makes a data folder out of a state, offline: the first member of a cluster that goes on from there.
//!
//! For a cluster that is restored from a snapshot, and for one that is reduced to a single survivor. The new
//! cluster has an identity of its own, so that no server of the old one can take part in it by mistake, and its
//! revisions jump ahead: what the old cluster counted after the state is never counted again for something else,
//! and whoever watched it is told to list anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flotilla_store::{HistoryLimits, Revision, Snapshot, State, Transaction};
use openraft::storage::RaftLogStorage as _;
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader as _};

use crate::consensus::{self, LogId, Membership, PeerNode, SnapshotMeta, StoredMembership, Vote};
use crate::members::{self, Member};
use crate::network::CallError;
use crate::platform::Platform;
use crate::storage::{self, About, FIRST_CLUSTER, FORMAT, LogStore, OpenError, SnapshotFolder};

/// How far revisions jump: far more than any cluster has counted since the state was taken.
const REVISION_JUMP: u64 = 1_000_000_000;
/// How long a server may take to show that it is there.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Memory for the log's pages while it is read once.
const CACHE_BYTES: u64 = 1 << 20;

/// The first member of a cluster, and what the cluster begins with.
#[derive(Clone, Debug)]
pub struct Founding {
    /// Identity of the member.
    pub id: u64,
    /// The server's node name.
    pub name: String,
    /// `host:port` that other servers dial.
    pub address: String,
    /// The identity of the new cluster; never used before.
    pub cluster: String,
    /// The identities of the clusters that it continues.
    pub former: Vec<String>,
    /// The objects.
    pub objects: Snapshot,
    /// The newest term of a leader in them.
    pub term: u64,
}

/// What an existing folder holds.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Whose folder it is: the cluster's identity, and those that it had before.
    pub cluster: String,
    /// See [`Founding::former`].
    pub former: Vec<String>,
    /// The members, as far as this folder knows.
    pub members: Vec<Member>,
    /// The objects after everything in the log, committed or not.
    pub objects: Snapshot,
    /// The newest term in it.
    pub term: u64,
}

/// Why a folder cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// What is there cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Writing failed.
    #[error("cannot write the store in {path}")]
    Write {
        /// The replica's folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads a folder without taking part in anything. Nobody may have it open.
///
/// Everything that the log has is counted as committed. Some of it may not have been, and then nobody was told that
/// it was; but what was acknowledged and is here must not be lost.
pub async fn read_folder(platform: &Platform, folder: &Path, id: u64) -> Result<Contents, FoundError> {
    let files = &*platform.files;
    let about = About::read(files, folder)?.unwrap_or_else(|| About::new(FIRST_CLUSTER));
    let mut log = LogStore::open(platform, folder, id, CACHE_BYTES).await?;
    let (_, saved) = SnapshotFolder::open(Arc::clone(&platform.files), folder)?;
    let snapshot_end = saved.as_ref().and_then(|saved| saved.meta.last_log_id);
    storage::check_whole(&log, snapshot_end, folder)?;
    let saved = saved.unwrap_or_default();
    let mut state = State::new(saved.objects, saved.term, HistoryLimits::default());
    let mut membership = saved.meta.last_membership.membership().clone();
    let start = snapshot_end.map_or(0, |log_id| log_id.index + 1);
    let entries = log.try_get_log_entries(start..).await;
    let entries = entries.map_err(|error| OpenError::damaged(folder, error.to_string()))?;
    for entry in entries {
        state.observe_term(entry.log_id.leader_id.term);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(newer) => membership = newer,
            EntryPayload::Normal(proposals) => {
                for bytes in &proposals.transactions {
                    let transaction: Transaction = consensus::decode(bytes).map_err(|error| {
                        OpenError::damaged(folder, format!("a transaction cannot be decoded: {error}"))
                    })?;
                    state.apply(&transaction);
                }
            }
        }
    }
    let voted = log.read_vote().await.ok().flatten();
    log.close();
    Ok(Contents {
        cluster: about.cluster,
        former: about.former,
        members: members::list(&membership),
        objects: state.snapshot().clone(),
        term: state
            .term()
            .max(voted.map_or(0, |vote: Vote| vote.leader_id().term)),
    })
}

/// Whether another server answers, whatever it says.
pub async fn other_answers(platform: &Platform, member: &Member) -> bool {
    let call = platform.transport.member_states(&member.address);
    match tokio::time::timeout(ANSWER_LIMIT, call).await {
        Ok(Ok(_) | Err(CallError::Refused(_) | CallError::LeftBehind(_))) => true,
        Ok(Err(CallError::NotDelivered(_) | CallError::Unknown(_))) | Err(_) => false,
    }
}

/// Makes a folder, in which there must be nothing; returns the revision at which the cluster goes on.
pub async fn found(platform: &Platform, folder: &Path, founding: Founding) -> Result<Revision, FoundError> {
    let failed = |source| FoundError::Write {
        path: folder.to_path_buf(),
        source,
    };
    let files = &*platform.files;
    files.create_folder(folder).map_err(failed)?;
    let revision = Revision(founding.objects.revision().0 + REVISION_JUMP);
    let objects = founding.objects.at_revision(revision);
    let log_id = LogId::new(CommittedLeaderId::new(founding.term, founding.id), 1);
    let node = PeerNode {
        name: founding.name,
        address: founding.address,
    };
    let membership = Membership::new(
        vec![BTreeSet::from([founding.id])],
        BTreeMap::from([(founding.id, node)]),
    );
    let meta = SnapshotMeta {
        last_log_id: Some(log_id),
        last_membership: StoredMembership::new(Some(log_id), membership),
        snapshot_id: log_id.index.to_string(),
    };
    // The next leader's term has to be a later one than any in the state.
    let mut log = LogStore::open(platform, folder, founding.id, CACHE_BYTES).await?;
    let vote = Vote::new(founding.term, founding.id);
    let saved = log.save_vote(&vote).await;
    saved.map_err(|error| failed(io::Error::other(error)))?;
    log.close();
    let (snapshots, _) = SnapshotFolder::open(Arc::clone(&platform.files), folder)?;
    snapshots.write(&meta, &objects, founding.term).map_err(failed)?;
    let about = About {
        format: FORMAT,
        cluster: founding.cluster,
        former: founding.former,
    };
    about.write(files, folder).map_err(failed)?;
    Ok(revision)
}
