//! What is known of the entries in the log: the id and size of each, and the newest of them themselves.
//!
//! Replication and apply nearly always want the newest entries; those are kept in memory, within a bound.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::record;
use super::entry_bytes;
use crate::consensus::{Entry, LogId};

/// Bytes of newest entries kept in memory; enough for a follower that lags by a moment.
const CACHED_BYTES_MAX: usize = 2 << 20;

/// Every entry between the purged ones and the end.
#[derive(Default)]
pub(super) struct Tail {
    slots: VecDeque<Slot>,
    /// The newest entries, up to the last.
    cached: VecDeque<Entry>,
    cached_bytes: usize,
}

struct Slot {
    log_id: LogId,
    chunks: u32,
}

impl Tail {
    /// The last entry, if there is one.
    pub(super) fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.log_id)
    }

    /// Index of the first entry, and the one after the last.
    fn bounds(&self) -> (u64, u64) {
        let first = self.slots.front().map_or(0, |slot| slot.log_id.index);
        (first, first + self.slots.len() as u64)
    }

    /// What the entries take, roughly.
    pub(super) fn bytes(&self) -> u64 {
        self.slots.iter().map(Slot::bytes).sum()
    }

    /// Index of the newest entry behind which there are at least `bytes`.
    pub(super) fn before_last(&self, bytes: u64) -> Option<u64> {
        let mut kept = 0;
        let first_kept = self.slots.iter().rev().find(|slot| {
            kept += slot.bytes();
            kept >= bytes
        });
        first_kept.and_then(|slot| slot.log_id.index.checked_sub(1))
    }

    /// Adds an entry. It follows the last one, or starts the log.
    pub(super) fn push(&mut self, entry: Entry, chunks: usize) {
        debug_assert!(
            self.slots.is_empty() || self.bounds().1 == entry.log_id.index,
            "a hole in the log"
        );
        self.slots.push_back(Slot {
            log_id: entry.log_id,
            chunks: chunks as u32,
        });
        self.cached_bytes += entry_bytes(&entry);
        self.cached.push_back(entry);
        while self.cached_bytes > CACHED_BYTES_MAX && self.cached.len() > 1 {
            self.uncache_first();
        }
    }

    fn uncache_first(&mut self) {
        if let Some(entry) = self.cached.pop_front() {
            self.cached_bytes -= entry_bytes(&entry);
        }
    }

    /// The range that has to be read from the disk, and what follows it from memory.
    pub(super) fn read(&self, start: u64, end: u64) -> (Option<(u64, u64)>, Vec<Entry>) {
        let (first, after_last) = self.bounds();
        let (start, end) = (start.max(first), end.min(after_last));
        if start >= end {
            return (None, Vec::new());
        }
        let cached_first = after_last - self.cached.len() as u64;
        let from_disk = (start < cached_first).then(|| (start, end.min(cached_first)));
        let skip = start.saturating_sub(cached_first) as usize;
        let take = end.saturating_sub(start.max(cached_first)) as usize;
        (
            from_disk,
            self.cached.iter().skip(skip).take(take).cloned().collect(),
        )
    }

    /// Removes the entries from an index on; answers the keys of their chunks.
    pub(super) fn truncate(&mut self, since: u64) -> Vec<Bytes> {
        let mut keys = Vec::new();
        while let Some(slot) = self.slots.pop_back_if(|slot| slot.log_id.index >= since) {
            keys.extend(slot.keys());
            if let Some(entry) = self.cached.pop_back() {
                self.cached_bytes -= entry_bytes(&entry);
            }
        }
        keys
    }

    /// Removes the entries up to an index; answers the keys of their chunks.
    pub(super) fn purge(&mut self, upto: u64) -> Vec<Bytes> {
        let mut keys = Vec::new();
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.log_id.index <= upto) {
            keys.extend(slot.keys());
            if self.cached.len() > self.slots.len() {
                self.uncache_first();
            }
        }
        keys
    }
}

impl Slot {
    fn bytes(&self) -> u64 {
        u64::from(self.chunks) * record::CHUNK_BYTES as u64
    }

    fn keys(&self) -> impl Iterator<Item = Bytes> {
        let index = self.log_id.index;
        (0..self.chunks).map(move |chunk| Bytes::copy_from_slice(&record::chunk_key(index, chunk)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::{CommittedLeaderId, EntryPayload};

    fn tail(indexes: std::ops::Range<u64>) -> Tail {
        let mut tail = Tail::default();
        for index in indexes {
            let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
            tail.push(
                Entry {
                    log_id,
                    payload: EntryPayload::Blank,
                },
                2,
            );
        }
        tail
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn what_is_not_in_memory_is_read_from_the_disk() {
        let mut tail = tail(5..10);
        tail.uncache_first();
        tail.uncache_first();
        let (disk, cached) = tail.read(0, 100);
        assert_eq!((disk, indexes(&cached)), (Some((5, 7)), vec![7, 8, 9]));
        let (disk, cached) = tail.read(6, 8);
        assert_eq!((disk, indexes(&cached)), (Some((6, 7)), vec![7]));
        let (disk, cached) = tail.read(8, 9);
        assert_eq!((disk, indexes(&cached)), (None, vec![8]));
        let (disk, cached) = tail.read(5, 6);
        assert_eq!((disk, indexes(&cached)), (Some((5, 6)), vec![]));
    }

    #[test]
    fn truncation_and_purge_name_every_chunk_and_keep_the_rest() {
        let mut tail = tail(5..10);
        assert_eq!(tail.truncate(8).len(), 4);
        assert_eq!(tail.last().map(|id| id.index), Some(7));
        assert_eq!(tail.purge(6).len(), 4);
        assert_eq!(indexes(&tail.read(0, 100).1), vec![7]);
        assert_eq!(tail.purge(100).len(), 2);
        assert_eq!(tail.last(), None);
        assert_eq!(tail.cached_bytes, 0);
    }

    #[test]
    fn so_much_of_the_end_is_kept_as_is_wanted() {
        let tail = tail(5..10);
        let entry_bytes = 2 * record::CHUNK_BYTES as u64;
        assert_eq!(tail.bytes(), 5 * entry_bytes);
        assert_eq!(tail.before_last(1), Some(8));
        assert_eq!(tail.before_last(2 * entry_bytes), Some(7));
        assert_eq!(tail.before_last(2 * entry_bytes + 1), Some(6));
        assert_eq!(tail.before_last(100 * entry_bytes), None);
    }
}
