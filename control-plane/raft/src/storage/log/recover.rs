//! Reads the log from the disk, and verifies all of it when the replica starts.

use std::io;
use std::path::Path;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::super::disk::Disk;
use super::super::{OpenError, record};
use super::tail::Tail;
use super::{IDENTITY_KEY, PURGED_KEY, VOTE_KEY, entry_bytes, put};
use crate::consensus::{self, Entry, LogId, Vote};

/// What the log holds.
pub(super) struct Recovered {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) tail: Tail,
}

/// Reads the whole log; refuses one with a hole, a wrong checksum or another member's identity.
pub(super) fn recover(disk: &Disk, folder: &Path, identity: u64) -> Result<Recovered, OpenError> {
    let db = disk.db().map_err(OpenError::folder(folder))?;
    let damaged = |damage: String| OpenError::damaged(folder, damage);
    check_identity(disk, &db, folder, identity)?;
    let vote: Option<Vote> = read_mark(&db, VOTE_KEY).map_err(damaged)?;
    let purged: Option<LogId> = read_mark(&db, PURGED_KEY).map_err(damaged)?;
    let first = purged.map_or(0, |purged| purged.index + 1);
    forget_purged(disk, &db, first).map_err(damaged)?;

    let mut tail = Tail::default();
    let mut last = purged;
    for record in Records::new(&db, first, u64::MAX) {
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
    Ok(Recovered { vote, purged, tail })
}

/// A folder is one member's for ever; a new one is marked durably before anything else is written.
fn check_identity(disk: &Disk, db: &sled::Db, folder: &Path, wanted: u64) -> Result<(), OpenError> {
    match read_mark::<u64>(db, IDENTITY_KEY).map_err(|damage| OpenError::damaged(folder, damage))? {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(OpenError::Identity {
            path: folder.to_path_buf(),
            found,
            wanted,
        }),
        None if !db.is_empty() => Err(OpenError::damaged(folder, "the identity is missing")),
        None => {
            let (tx, rx) = std::sync::mpsc::channel();
            let done = move |result| {
                // The receiver waits below.
                let _ = tx.send(result);
            };
            disk.write(vec![put(IDENTITY_KEY, &wanted)], Box::new(done));
            rx.recv()
                .unwrap_or_else(|error| Err(io::Error::other(error)))
                .map_err(OpenError::folder(folder))
        }
    }
}

/// Keys of purged entries that were not yet removed when the replica stopped.
fn forget_purged(disk: &Disk, db: &sled::Db, first: u64) -> Result<(), String> {
    let mut keys = Vec::new();
    for key in db
        .range(record::chunk_key(0, 0)..record::chunk_key(first, 0))
        .keys()
    {
        keys.push(Bytes::copy_from_slice(&key.map_err(|error| error.to_string())?));
    }
    if !keys.is_empty() {
        disk.forget(keys);
    }
    Ok(())
}

fn read_mark<T: DeserializeOwned>(db: &sled::Db, key: &[u8]) -> Result<Option<T>, String> {
    let name = String::from_utf8_lossy(key);
    let Some(record) = db
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
    let db = disk.db()?;
    let mut entries = Vec::new();
    let mut bytes = 0;
    for record in Records::new(&db, start, end) {
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
    chunks: sled::Iter,
    /// First chunk of the next record.
    ahead: Option<(u64, sled::IVec)>,
    ended: bool,
}

impl Records {
    fn new(db: &sled::Db, start: u64, end: u64) -> Records {
        let range = record::chunk_key(start, 0)..record::chunk_key(end, 0);
        Records {
            chunks: db.range(range),
            ahead: None,
            ended: false,
        }
    }

    fn next_chunk(&mut self) -> Result<Option<(u64, u32, sled::IVec)>, String> {
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
