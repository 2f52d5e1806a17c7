//! A sorted map on a simulated disk: what is durable, and batches that are not yet.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use flotilla_raft::platform::{Change, Tree, TreeRange};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{Disk, State};
use crate::chance::Chance;

type Map = BTreeMap<Bytes, Bytes>;

/// What a tree holds.
#[derive(Default)]
pub(super) struct TreeContent {
    durable: Map,
    /// Batches that the next sync makes durable.
    pending: Vec<Vec<Change>>,
    /// What readers see.
    current: Map,
}

impl TreeContent {
    /// Keeps some of the first batches that were not synced; a batch is whole or gone.
    pub(super) fn cut(&mut self, chance: &Chance) {
        let kept = chance.number(0..self.pending.len() as u64 + 1) as usize;
        self.make_durable(kept);
        self.pending.clear();
        self.current = self.durable.clone();
    }

    fn make_durable(&mut self, batches: usize) {
        let batches = batches.min(self.pending.len());
        for change in self.pending.drain(..batches).flatten() {
            change_map(&mut self.durable, change);
        }
    }

    /// Flips a bit of one value.
    pub(super) fn flip_a_bit(&mut self, chance: &Chance) -> bool {
        let keys: Vec<Bytes> = self.durable.keys().cloned().collect();
        let Some(key) = chance.pick(&keys) else {
            return false;
        };
        let mut value = self.durable[&key].to_vec();
        if value.is_empty() {
            return false;
        }
        flip(&mut value, chance);
        self.durable.insert(key, Bytes::from(value));
        self.current = self.durable.clone();
        true
    }
}

/// Flips a bit of bytes that are not none.
pub(super) fn flip(bytes: &mut [u8], chance: &Chance) {
    let at = chance.number(0..bytes.len() as u64) as usize;
    bytes[at] ^= 1 << chance.number(0..8);
}

fn change_map(map: &mut Map, change: Change) {
    match change {
        Change::Put(key, value) => {
            map.insert(key, value);
        }
        Change::Remove(key) => {
            map.remove(&key);
        }
    }
}

/// A tree as one process has it open.
pub(super) struct SimTree {
    pub(super) disk: Disk,
    pub(super) path: PathBuf,
    pub(super) generation: u64,
}

/// A sync on a quiet disk.
const SYNC_MS: u64 = 4;

impl SimTree {
    fn with<T>(&self, work: impl FnOnce(&mut TreeContent) -> T) -> io::Result<T> {
        let mut state = self.disk.state();
        let State {
            trees, generation, ..
        } = &mut *state;
        if *generation != self.generation {
            return Err(io::Error::other("the process that had it open is gone"));
        }
        trees
            .get_mut(&self.path)
            .map(work)
            .ok_or_else(|| io::Error::other("the tree was removed"))
    }
}

impl Tree for SimTree {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.with(|tree| tree.current.get(key).cloned())
    }

    fn range(&self, keys: Range<Bytes>) -> TreeRange {
        let found: Vec<io::Result<(Bytes, Bytes)>> = self
            .with(|tree| {
                let range = tree.current.range(keys);
                range
                    .map(|(key, value)| Ok((key.clone(), value.clone())))
                    .collect()
            })
            .unwrap_or_else(|error| vec![Err(error)]);
        Box::new(found.into_iter())
    }

    fn is_empty(&self) -> bool {
        self.with(|tree| tree.current.is_empty()).unwrap_or(true)
    }

    fn bytes_on_disk(&self) -> io::Result<u64> {
        self.with(|tree| {
            let sizes = tree.current.iter().map(|(key, value)| key.len() + value.len());
            sizes.sum::<usize>() as u64
        })
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, io::Result<()>> {
        async move {
            self.disk.check_write("apply")?;
            self.with(|tree| {
                for change in &changes {
                    change_map(&mut tree.current, change.clone());
                }
                tree.pending.push(changes);
            })
        }
        .boxed()
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        async move {
            let batches = self.with(|tree| tree.pending.len())?;
            tokio::time::sleep(self.disk.latency(SYNC_MS)).await;
            self.disk.check("sync")?;
            self.with(|tree| tree.make_durable(batches))
        }
        .boxed()
    }
}
