//! Reads the log from the disk, and verifies all of it when the replica starts.

use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::super::disk::Disk;
use super::super::{OpenError, record};
use super::tail::Tail;
use super::{IDENTITY_KEY, PURGED_KEY, VOTE_KEY, entry_bytes};
use crate::consensus::{self, Entry, LogId, Vote};
use crate::platform::{Tree, TreeRange};

/// What the log holds.
pub(super) struct Recovered {
    /// The folder is nobody's yet.
    pub(super) unmarked: bool,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) tail: Tail,
}

/// Reads the whole log; refuses one with a hole, a wrong checksum or another member's identity.
pub(super) fn recover(disk: &Disk, folder: &Path, identity: u64) -> Result<Recovered, OpenError> {
    let tree = disk.tree().map_err(OpenError::folder(folder))?;
    let damaged = |damage: String| OpenError::damaged(folder, damage);
    let unmarked = is_unmarked(&*tree, folder, identity)?;
    let vote: Option<Vote> = read_mark(&*tree, VOTE_KEY).map_err(damaged)?;
    let purged: Option<LogId> = read_mark(&*tree, PURGED_KEY).map_err(damaged)?;
    let first = purged.map_or(0, |purged| purged.index + 1);
    forget_purged(disk, &*tree, first).map_err(damaged)?;

    let mut tail = Tail::default();
    let mut last = purged;
    for record in Records::new(&*tree, first, u64::MAX) {
        let Record { index, bytes, chunks } = record.map_err(damaged)?;
        let expected = last.map_or(0, |last| last.index + 1);
        if index != expected {
            return Err(damaged(format!(
                "log entry {expected} is missing, the next is {index}"
            )));
        }
        let entry = record::decode_entry(index, &bytes).map_err(damaged)?;
        if Some(entry.log_id) < last {
            return Err(damaged(format!(
                "log entry {index} is of an older term than the one before"
            )));
        }
        last = Some(entry.log_id);
        tail.push(entry, chunks);
    }
    if vote.is_none() && last.is_some() {
        return Err(damaged(
            "there are log entries, but the vote is missing".to_owned(),
        ));
    }
    Ok(Recovered {
        unmarked,
        vote,
        purged,
        tail,
    })
}

/// A folder is one member's for ever. True when nobody has marked it as its own yet.
fn is_unmarked(tree: &dyn Tree, folder: &Path, wanted: u64) -> Result<bool, OpenError> {
    match read_mark::<u64>(tree, IDENTITY_KEY).map_err(|damage| OpenError::damaged(folder, damage))? {
        Some(found) if found == wanted => Ok(false),
        Some(found) => Err(OpenError::Identity {
            path: folder.to_path_buf(),
            found,
            wanted,
        }),
        None if !tree.is_empty() => Err(OpenError::damaged(folder, "the identity is missing")),
        None => Ok(true),
    }
}

/// Keys of purged entries that were not yet removed when the replica stopped.
fn forget_purged(disk: &Disk, tree: &dyn Tree, first: u64) -> Result<(), String> {
    let keys = tree
        .range(entries(0, first))
        .map(|found| found.map(|(key, _)| key))
        .collect::<Result<Vec<Bytes>, _>>()
        .map_err(|error| error.to_string())?;
    if !keys.is_empty() {
        disk.forget(keys);
    }
    Ok(())
}

/// The keys of all chunks of the entries from an index to before another.
fn entries(start: u64, end: u64) -> Range<Bytes> {
    let key = |index| Bytes::copy_from_slice(&record::chunk_key(index, 0));
    key(start)..key(end)
}

fn read_mark<T: DeserializeOwned>(tree: &dyn Tree, key: &[u8]) -> Result<Option<T>, String> {
    let name = String::from_utf8_lossy(key);
    let Some(record) = tree
        .get(key)
        .map_err(|error| format!("{name} cannot be read: {error}"))?
    else {
        return Ok(None);
    };
    let payload = record::unseal(&record).ok_or_else(|| format!("the checksum of {name} is wrong"))?;
    consensus::decode(payload)
        .map(Some)
        .map_err(|error| format!("{name} cannot be decoded: {error}"))
}

/// Reads entries, stopping after `bytes_max`.
pub(super) fn read_entries(disk: &Disk, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
    let tree = disk.tree()?;
    let mut entries = Vec::new();
    let mut bytes = 0;
    for record in Records::new(&*tree, start, end) {
        let record = record.map_err(io::Error::other)?;
        let entry = record::decode_entry(record.index, &record.bytes).map_err(io::Error::other)?;
        bytes += entry_bytes(&entry);
        entries.push(entry);
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(entries)
}

/// The chunks of one entry, put together.
struct Record {
    index: u64,
    bytes: Vec<u8>,
    chunks: usize,
}

/// Puts chunks together while it walks through the tree.
struct Records {
    chunks: TreeRange,
    /// First chunk of the next record.
    ahead: Option<(u64, Bytes)>,
    ended: bool,
}

impl Records {
    fn new(tree: &dyn Tree, start: u64, end: u64) -> Records {
        Records {
            chunks: tree.range(entries(start, end)),
            ahead: None,
            ended: false,
        }
    }

    fn next_chunk(&mut self) -> Result<Option<(u64, u32, Bytes)>, String> {
        let Some(chunk) = self.chunks.next() else {
            return Ok(None);
        };
        let (key, value) = chunk.map_err(|error| format!("the log cannot be read: {error}"))?;
        let (index, number) = record::parse_key(&key).ok_or("a key is not of the log")?;
        Ok(Some((index, number, value)))
    }

    fn read(&mut self) -> Result<Option<Record>, String> {
        let (index, first) = match self.ahead.take() {
            Some(ahead) => ahead,
            None => match self.next_chunk()? {
                Some((index, 0, value)) => (index, value),
                Some((index, ..)) => return Err(format!("the start of log entry {index} is missing")),
                None => return Ok(None),
            },
        };
        let mut record = Record {
            index,
            bytes: first.to_vec(),
            chunks: 1,
        };
        while let Some((index, number, value)) = self.next_chunk()? {
            if index != record.index {
                if number != 0 {
                    return Err(format!("the start of log entry {index} is missing"));
                }
                self.ahead = Some((index, value));
                break;
            }
            if number as usize != record.chunks {
                return Err(format!("a part of log entry {index} is missing"));
            }
            record.bytes.extend_from_slice(&value);
            record.chunks += 1;
        }
        Ok(Some(record))
    }
}

impl Iterator for Records {
    type Item = Result<Record, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.read().transpose();
        self.ended = !matches!(record, Some(Ok(_)));
        record
    }
}
