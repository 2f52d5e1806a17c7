//! A disk that keeps what was synced, and of the rest what chance says.
//!
//! It outlives the replica that uses it. A crash of the process loses what sled had in its own memory; a power cut
//! loses what the kernel had as well: any end of what was applied to a tree, any end of what was written to a file,
//! and names that were not synced. It may also stall, fail, fill up, and flip bits.

mod files;
mod tree;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_raft::platform::{OpenTreeError, Tree, Trees};

use self::files::Folder;
use self::tree::{SimTree, TreeContent};
use crate::chance::Chance;
use crate::trace::Trace;

/// One disk. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    chance: Chance,
    trace: Trace,
    name: String,
}

/// How a disk is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// A sync takes this much longer.
    pub(crate) stall_ms: u64,
    /// Writes and syncs fail once in so many times; zero is never.
    pub(crate) fails_one_in: u64,
    /// Nothing can be added.
    pub(crate) is_full: bool,
}

#[derive(Default)]
struct State {
    trees: BTreeMap<PathBuf, TreeContent>,
    folder: Folder,
    health: Health,
    /// Files and trees of an earlier process write to a disk that is no longer theirs.
    generation: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The process is gone, the machine runs on.
    Process,
    /// The machine was without power.
    Power,
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(seed: u64, name: &str, trace: Trace) -> Disk {
        Disk {
            state: Arc::default(),
            chance: Chance::new(seed, &format!("disk {name}")),
            trace,
            name: name.to_owned(),
        }
    }

    /// Changes how it is doing.
    pub(crate) fn set_health(&self, health: Health) {
        self.state().health = health;
    }

    /// Forgets what was not safe yet.
    pub(crate) fn cut(&self, cut: Cut) {
        let mut state = self.state();
        state.generation += 1;
        for tree in state.trees.values_mut() {
            tree.cut(&self.chance);
        }
        if cut == Cut::Power {
            state.folder.cut(&self.chance);
        }
    }

    /// Forgets everything.
    pub(crate) fn wipe(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.trees.clear();
        state.folder = Folder::default();
    }

    /// Flips one bit somewhere; false when there is none.
    pub(crate) fn flip_a_bit(&self) -> bool {
        let mut state = self.state();
        let in_tree = self.chance.one_in(2);
        let State { trees, folder, .. } = &mut *state;
        let flip_tree = |trees: &mut BTreeMap<PathBuf, TreeContent>| {
            trees.values_mut().any(|tree| tree.flip_a_bit(&self.chance))
        };
        let flipped = if in_tree {
            flip_tree(trees)
        } else {
            folder.flip_a_bit(&self.chance)
        };
        flipped || flip_tree(trees)
    }

    /// Fails as the disk's health says.
    fn check_write(&self, what: &str) -> io::Result<()> {
        let health = self.state().health;
        if health.is_full {
            self.trace.note(format_args!("{} {what}: disk full", self.name));
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.check(what)
    }

    fn check(&self, what: &str) -> io::Result<()> {
        let one_in = self.state().health.fails_one_in;
        if one_in > 0 && self.chance.one_in(one_in) {
            self.trace.note(format_args!("{} {what}: I/O error", self.name));
            return Err(io::Error::other("simulated I/O error"));
        }
        Ok(())
    }

    /// How long something takes that is usually done within `usual_ms`.
    pub(crate) fn latency(&self, usual_ms: u64) -> Duration {
        let stall_ms = self.state().health.stall_ms;
        let stall_ms = if stall_ms == 0 {
            0
        } else {
            self.chance.number(0..stall_ms)
        };
        Duration::from_millis(self.chance.number(0..usual_ms + 1) + stall_ms)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trees for Disk {
    fn exists(&self, folder: &Path) -> bool {
        self.state().trees.contains_key(folder)
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        self.check("remove")?;
        self.state().trees.remove(folder);
        Ok(())
    }

    fn open(&self, folder: &Path, _cache_bytes: u64) -> Result<Arc<dyn Tree>, OpenTreeError> {
        self.check("open")?;
        let mut state = self.state();
        state.trees.entry(folder.to_owned()).or_default();
        Ok(Arc::new(SimTree {
            disk: self.clone(),
            path: folder.to_owned(),
            generation: state.generation,
        }))
    }
}
