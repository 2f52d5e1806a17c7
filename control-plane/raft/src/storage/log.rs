//! Raft's log and vote on the disk.
//!
//! *Guarantees*: an append is reported only once it is durable; the log has no hole, at open neither: every
//! entry between the purged ones and the last is there with its checksum, or the store does not open.
//! *Assumes*: openraft calls the writing methods from one task.

mod recover;
mod tail;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flotilla_store::planted::{PlantedBug, is_planted};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, LeaderId, OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use self::tail::Tail;
use super::committed::CommittedFile;
use super::disk::Disk;
use super::{OpenError, io_error, record};
use crate::consensus::{self, Entry, LogId, StorageError, TypeConfig, Vote};
use crate::platform::{Change, OpenTreeError, Place, Platform};

const VOTE_KEY: &[u8] = b"m:vote";
const PURGED_KEY: &[u8] = b"m:purged";
const IDENTITY_KEY: &[u8] = b"m:identity";

/// Bytes of entries that go to a follower in one message, unless a single one is larger.
const READ_BYTES_MAX: usize = 512 << 10;
/// What the log may take of the disk beyond what it needs; copying it for less would stop writers too often.
const WASTE_BYTES_MAX: u64 = 6 << 20;

/// The log. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct LogStore {
    disk: Arc<Disk>,
    index: Arc<Mutex<Index>>,
    committed_file: Arc<CommittedFile>,
    platform: Platform,
    /// The member that it belongs to.
    identity: u64,
}

/// What is known of the log without reading it.
struct Index {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    tail: Tail,
}

impl LogStore {
    /// Opens the log in a folder and reads all of it once; a new folder is marked as this member's.
    pub(crate) async fn open(
        platform: &Platform,
        folder: &Path,
        identity: u64,
        cache_bytes: u64,
    ) -> Result<LogStore, OpenError> {
        let (owned, path) = (platform.clone(), folder.to_path_buf());
        let (log, unmarked) = platform
            .blocking(move || LogStore::recover(owned, &path, identity, cache_bytes))
            .await
            .map_err(OpenError::folder(folder))??;
        if unmarked {
            // Durably, before anything else is written.
            log.write(vec![put(IDENTITY_KEY, &identity)])
                .await
                .map_err(OpenError::folder(folder))?;
        }
        Ok(log)
    }

    /// Reads and verifies all of it; true when the folder is nobody's yet. Blocks.
    fn recover(
        platform: Platform,
        folder: &Path,
        identity: u64,
        cache_bytes: u64,
    ) -> Result<(LogStore, bool), OpenError> {
        let disk = Disk::open(&platform, folder, cache_bytes).map_err(|error| match error {
            OpenTreeError::Io(source) => OpenError::folder(folder)(source),
            OpenTreeError::Damaged(damage) => OpenError::damaged(folder, damage),
        })?;
        let recovered = recover::recover(&disk, folder, identity)?;
        let committed_path = folder.join("committed");
        let (file, committed) = CommittedFile::open(&*platform.files, &committed_path)
            .map_err(OpenError::folder(&committed_path))?;
        let index = Index {
            vote: recovered.vote,
            committed,
            purged: recovered.purged,
            tail: recovered.tail,
        };
        let log = LogStore {
            disk: Arc::new(disk),
            index: Arc::new(Mutex::new(index)),
            committed_file: Arc::new(file),
            platform,
            identity,
        };
        Ok((log, recovered.unmarked))
    }

    /// Everything up to here has been removed.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.index().purged
    }

    /// The last entry, purged or not.
    pub(crate) fn last(&self) -> Option<LogId> {
        let index = self.index();
        index.tail.last().or(index.purged)
    }

    /// What is known to be committed; may lag.
    pub(crate) fn committed(&self) -> Option<LogId> {
        self.index().committed
    }

    /// The newest entry that may be purged so that about `bytes` of the log are kept.
    pub(crate) fn before_last(&self, bytes: u64) -> Option<u64> {
        self.index().tail.before_last(bytes)
    }

    /// Gives space back to the disk if the log takes much more of it than it needs and `allowed_bytes`.
    pub(crate) fn shrink(&self, allowed_bytes: u64) {
        let (first, live_bytes) = {
            let index = self.index();
            (
                index.purged.map_or(0, |purged| purged.index + 1),
                index.tail.bytes(),
            )
        };
        let first = Bytes::copy_from_slice(&record::chunk_key(first, 0));
        self.disk.shrink(first, live_bytes, allowed_bytes);
    }

    /// What the log takes of the disk.
    pub(crate) fn bytes_on_disk(&self) -> io::Result<u64> {
        self.disk.bytes_on_disk()
    }

    /// Finishes what is queued and lets go of the files. Blocks.
    pub(crate) fn close(&self) {
        self.disk.close();
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes changes durable before it returns.
    async fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        self.disk.write(
            changes,
            Box::new(move |result| {
                // The caller has gone away only when the replica is being torn down.
                let _ = tx.send(result);
            }),
        );
        rx.await
            .unwrap_or_else(|_| Err(io::Error::other("the disk thread has stopped")))
    }

    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        let (from_disk, mut cached) = self.index().tail.read(start, end);
        let mut entries = match from_disk {
            None => Vec::new(),
            Some((start, end)) => {
                let disk = Arc::clone(&self.disk);
                let read = move || recover::read_entries(&disk, start, end, bytes_max);
                let read = self.platform.blocking(read).await;
                read.unwrap_or_else(Err)
                    .map_err(|error| io_error(ErrorSubject::Logs, ErrorVerb::Read, &error))?
            }
        };
        let disk_complete = from_disk.is_none_or(|(start, end)| entries.len() as u64 == end - start);
        if disk_complete {
            entries.append(&mut cached);
        }
        Ok(limited(entries, bytes_max))
    }
}

/// The first entries that fit, at least one.
fn limited(mut entries: Vec<Entry>, bytes_max: usize) -> Vec<Entry> {
    let mut bytes = 0;
    let fitting = entries
        .iter()
        .take_while(|entry| {
            let fits = bytes < bytes_max;
            bytes += entry_bytes(entry);
            fits
        })
        .count();
    entries.truncate(fitting);
    entries
}

/// What an entry weighs, roughly.
fn entry_bytes(entry: &Entry) -> usize {
    const OTHER_BYTES: usize = 64;
    OTHER_BYTES
        + match &entry.payload {
            EntryPayload::Normal(proposals) => proposals.bytes(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

fn place(log_id: LogId) -> Place {
    Place {
        term: log_id.leader_id.term,
        leader: log_id.leader_id.node_id,
        index: log_id.index,
    }
}

fn put(key: &'static [u8], value: &impl serde::Serialize) -> Change {
    Change::Put(Bytes::from_static(key), record::seal(&consensus::encode(value)))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, READ_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let last_log_id = self.last();
        Ok(LogState {
            last_purged_log_id: self.purged(),
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        if !(is_planted(PlantedBug::ForgetVote) && self.index().vote.is_some()) {
            self.write(vec![put(VOTE_KEY, vote)])
                .await
                .map_err(|error| io_error(ErrorSubject::Vote, ErrorVerb::Write, &error))?;
        }
        self.index().vote = Some(*vote);
        Ok(())
    }

    /// A leader that starts again is no longer one. openraft 0.9 would let it go on in its term; but it sends entries
    /// to others before its own disk has them, so it may have lost some that a majority took, and would put others
    /// in their place under the same index and term.
    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.index().vote;
        Ok(vote.map(|vote| {
            let LeaderId { term, node_id } = vote.leader_id;
            if node_id == self.identity {
                Vote::new(term, node_id)
            } else {
                vote
            }
        }))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        if let Some(committed) = committed {
            self.committed_file
                .write(committed)
                .map_err(|error| io_error(ErrorSubject::Logs, ErrorVerb::Write, &error))?;
        }
        self.index().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.committed())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut changes = Vec::new();
        {
            let mut index = self.index();
            for entry in entries {
                if let EntryPayload::Normal(proposals) = &entry.payload {
                    proposals.appended.set();
                }
                let log_id = entry.log_id;
                let record = record::seal(&consensus::encode(&entry));
                if let Some(witness) = &self.platform.witness {
                    let previous = index.tail.last().or(index.purged);
                    witness.appended(previous.map(place), place(log_id), &record);
                }
                let chunks = record::chunks(log_id.index, &record);
                index.tail.push(entry, chunks.len());
                changes.extend(
                    chunks
                        .into_iter()
                        .map(|(key, value)| Change::Put(Bytes::copy_from_slice(&key), value)),
                );
            }
        }
        self.disk
            .write(changes, Box::new(move |result| callback.log_io_completed(result)));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        let keys = self.index().tail.truncate(since.index);
        self.write(keys.into_iter().map(Change::Remove).collect())
            .await
            .map_err(|error| io_error(ErrorSubject::Log(since), ErrorVerb::Delete, &error))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let mut changes = vec![put(PURGED_KEY, &upto)];
        {
            let mut index = self.index();
            // A snapshot of a later term has overtaken a tail that was never committed: all of that goes, and
            // at once, because its indexes will be used again.
            if index.tail.last().is_some_and(|last| last < upto) {
                changes.extend(
                    index
                        .tail
                        .truncate(upto.index + 1)
                        .into_iter()
                        .map(Change::Remove),
                );
            }
        }
        // The mark is durable before the first entry goes: what lies below the mark is not part of the log.
        self.write(changes)
            .await
            .map_err(|error| io_error(ErrorSubject::Log(upto), ErrorVerb::Delete, &error))?;
        let keys = {
            let mut index = self.index();
            index.purged = Some(upto);
            index.tail.purge(upto.index)
        };
        self.disk.forget(keys);
        self.shrink(WASTE_BYTES_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;
    use openraft::storage::RaftLogStorageExt;

    use super::*;

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    fn entry(term: u64, index: u64) -> Entry {
        Entry {
            log_id: log_id(term, index),
            payload: EntryPayload::Blank,
        }
    }

    fn platform() -> Platform {
        Platform::real(Arc::new(|_| unreachable!("the log calls nobody")))
    }

    async fn open(folder: &Path) -> LogStore {
        LogStore::open(&platform(), folder, 1, 1 << 20).await.unwrap()
    }

    async fn ids(log: &mut LogStore) -> Vec<LogId> {
        let entries = log.try_get_log_entries(..).await.unwrap();
        entries.iter().map(|entry| entry.log_id).collect()
    }

    #[tokio::test]
    async fn what_was_appended_truncated_and_purged_is_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path()).await;
        log.save_vote(&Vote::new(2, 1)).await.unwrap();
        log.blocking_append((0..10).map(|index| entry(1, index)))
            .await
            .unwrap();
        log.truncate(log_id(1, 8)).await.unwrap();
        log.blocking_append([entry(2, 8)]).await.unwrap();
        log.purge(log_id(1, 5)).await.unwrap();
        log.save_committed(Some(log_id(1, 7))).await.unwrap();
        let expected = vec![log_id(1, 6), log_id(1, 7), log_id(2, 8)];
        assert_eq!(ids(&mut log).await, expected);
        log.close();

        let mut log = open(folder.path()).await;
        assert_eq!(ids(&mut log).await, expected);
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(2, 1)));
        assert_eq!(
            (log.purged(), log.committed()),
            (Some(log_id(1, 5)), Some(log_id(1, 7)))
        );
    }

    #[tokio::test]
    async fn a_leader_is_none_any_more_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path()).await;
        log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
        log.close();
        let mut log = open(folder.path()).await;
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, 1)));
        log.save_vote(&Vote::new_committed(4, 2)).await.unwrap();
        log.close();
        let mut log = open(folder.path()).await;
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(4, 2)));
    }

    #[tokio::test]
    async fn a_snapshot_of_a_later_term_replaces_a_tail_that_was_never_committed() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path()).await;
        log.save_vote(&Vote::new(3, 1)).await.unwrap();
        log.blocking_append((0..10).map(|index| entry(1, index)))
            .await
            .unwrap();
        log.purge(log_id(3, 5)).await.unwrap();
        assert_eq!(log.last(), Some(log_id(3, 5)));
        log.blocking_append([entry(3, 6)]).await.unwrap();
        log.close();
        assert_eq!(ids(&mut open(folder.path()).await).await, [log_id(3, 6)]);
    }

    #[tokio::test]
    async fn a_hole_or_a_lost_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path()).await;
        log.save_vote(&Vote::new(1, 1)).await.unwrap();
        log.blocking_append((0..5).map(|index| entry(1, index)))
            .await
            .unwrap();
        log.save_committed(Some(log_id(1, 4))).await.unwrap();
        log.write(vec![Change::Remove(Bytes::copy_from_slice(&record::chunk_key(
            4, 0,
        )))])
        .await
        .unwrap();
        log.close();
        let shortened = open(folder.path()).await;
        let refused = super::super::check_whole(&shortened, None, folder.path()).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");

        let key = Bytes::copy_from_slice(&record::chunk_key(2, 0));
        shortened.write(vec![Change::Remove(key)]).await.unwrap();
        shortened.close();
        let refused = LogStore::open(&platform(), folder.path(), 1, 1 << 20)
            .await
            .err()
            .unwrap();
        assert!(
            refused.to_string().contains("log entry 2 is missing"),
            "{refused}"
        );
    }
}
