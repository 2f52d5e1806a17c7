//! A tree behind one writing task that makes writes durable together.
//!
//! *Guarantees*: `done` of a write is called with `Ok` only after the write, and all before it, would survive
//! a power cut. After a failed write or sync nothing is acknowledged any more: what a disk kept of a failed
//! sync is unknown, and a second sync that succeeds proves nothing.

mod generations;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flotilla_report::report;
use flotilla_store::planted::{PlantedBug, is_planted};
use futures::FutureExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::generations::Generation;
use crate::platform::{Change, Join, OpenTreeError, Platform, Tree};

/// Called when a write is durable, or surely is not known to be.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

enum Command {
    /// Changes that become durable as one, in the order of the commands.
    Write(Vec<Change>, Done),
    /// Keys that nobody reads any more; removed bit by bit.
    Forget(Vec<Bytes>),
    /// What lies at or behind this key goes on in a fresh tree; what lies before is not wanted any more.
    Rewrite(Bytes),
    Stop,
}

/// The tree that readers read; none when the replica has been shut down.
type Current = Arc<Mutex<Option<Arc<dyn Tree>>>>;

/// Handle of the writing task.
pub(super) struct Disk {
    tree: Current,
    /// Unbounded, because its writers wait for their answers: openraft has a few writes on their way.
    commands: UnboundedSender<Command>,
    writer: Mutex<Option<Join>>,
}

impl Disk {
    /// Opens the tree in a replica's folder and starts its task. Blocks.
    pub(super) fn open(
        platform: &Platform,
        data_dir: &Path,
        cache_bytes: u64,
    ) -> Result<Disk, OpenTreeError> {
        let generation = Generation::open(platform, data_dir, cache_bytes)?;
        let tree: Current = Arc::new(Mutex::new(Some(Arc::clone(&generation.tree))));
        let (commands, receiver) = unbounded_channel();
        let writer = Writer {
            platform: platform.clone(),
            generation,
            current: Arc::clone(&tree),
            retired: None,
            rewrite_from: None,
            doomed: VecDeque::new(),
            failed: None,
        };
        let writer = platform
            .threads
            .start("raft-disk", writer.run(receiver).boxed())?;
        Ok(Disk {
            tree,
            commands,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// The tree, for reads.
    pub(super) fn tree(&self) -> io::Result<Arc<dyn Tree>> {
        let tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        tree.clone()
            .ok_or_else(|| io::Error::other("the replica has been shut down"))
    }

    /// Queues changes.
    pub(super) fn write(&self, changes: Vec<Change>, done: Done) {
        if let Err(unsent) = self.commands.send(Command::Write(changes, done))
            && let Command::Write(_, done) = unsent.0
        {
            done(Err(io::Error::other("the replica has been shut down")));
        }
    }

    /// Queues keys for removal at leisure.
    pub(super) fn forget(&self, keys: Vec<Bytes>) {
        // A task that has stopped removes nothing; the next start does.
        let _ = self.commands.send(Command::Forget(keys));
    }

    /// Lets what lives, `live_bytes` from the key `first` on, go on in a fresh tree if this one is much larger than that
    /// and what is allowed beside it.
    pub(super) fn shrink(&self, first: Bytes, live_bytes: u64, allowed_bytes: u64) {
        let disk_bytes = self.bytes_on_disk().unwrap_or_default();
        if generations::worth_rewriting(live_bytes, disk_bytes, allowed_bytes) {
            // A task that has stopped rewrites nothing.
            let _ = self.commands.send(Command::Rewrite(first));
        }
    }

    /// What the tree takes of the disk.
    pub(super) fn bytes_on_disk(&self) -> io::Result<u64> {
        self.tree()?.bytes_on_disk()
    }

    /// Finishes what is queued and lets go of the files. Blocks.
    pub(super) fn close(&self) {
        let _ = self.commands.send(Command::Stop);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(wait) = writer {
            wait();
        }
        self.tree.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Disk {
    /// The folder is free once the last handle is gone, however the replica ended.
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    platform: Platform,
    generation: Generation,
    current: Current,
    /// The tree before this one, while somebody still reads it.
    retired: Option<Generation>,
    rewrite_from: Option<Bytes>,
    doomed: VecDeque<Bytes>,
    failed: Option<Arc<str>>,
}

/// What becomes durable with one sync.
#[derive(Default)]
struct Round {
    changes: Vec<Change>,
    waiting: Vec<Done>,
    last: bool,
}

/// Removals that may ride along with one write: a purge of thousands of entries must not delay an append.
const FORGOTTEN_PER_ROUND: usize = 128;
/// Writes that one sync makes durable; more only delays the first of them.
const WRITES_PER_ROUND: usize = 1024;

impl Writer {
    async fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        loop {
            let Some(mut round) = self.gather(&mut commands).await else {
                return;
            };
            self.forget_some(&mut round.changes);
            let sync = !round.waiting.is_empty();
            if is_planted(PlantedBug::AcknowledgeBeforeSync) {
                round.waiting.drain(..).for_each(|done| done(Ok(())));
            }
            let result = self.commit(round.changes, sync).await;
            for done in round.waiting {
                done(match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::other(Arc::clone(error).to_string())),
                });
            }
            if round.last {
                return;
            }
            self.rewrite().await;
        }
    }

    /// Takes what has been queued meanwhile; waits when there is nothing to do. None when nobody can ask any more.
    async fn gather(&mut self, commands: &mut UnboundedReceiver<Command>) -> Option<Round> {
        let mut round = Round::default();
        if self.doomed.is_empty() {
            let command = commands.recv().await?;
            self.take(command, &mut round);
        }
        while !round.last && round.waiting.len() < WRITES_PER_ROUND {
            let Ok(command) = commands.try_recv() else { break };
            self.take(command, &mut round);
        }
        Some(round)
    }

    fn take(&mut self, command: Command, round: &mut Round) {
        match command {
            Command::Write(mut changes, done) => {
                round.changes.append(&mut changes);
                round.waiting.push(done);
            }
            Command::Forget(keys) => self.doomed.extend(keys),
            Command::Rewrite(first) => self.rewrite_from = Some(first),
            Command::Stop => round.last = true,
        }
    }

    fn forget_some(&mut self, changes: &mut Vec<Change>) {
        let count = self.doomed.len().min(FORGOTTEN_PER_ROUND);
        changes.extend(self.doomed.drain(..count).map(Change::Remove));
    }

    async fn commit(&mut self, changes: Vec<Change>, sync: bool) -> Result<(), Arc<str>> {
        if let Some(failed) = &self.failed {
            return Err(Arc::clone(failed));
        }
        let result = self.try_commit(changes, sync).await;
        result.map_err(|error| {
            let error: Arc<str> = format!("the log cannot be written: {error}").into();
            tracing::error!(
                reason = &*error,
                "the disk failed; this replica acknowledges nothing any more"
            );
            self.failed = Some(Arc::clone(&error));
            error
        })
    }

    async fn try_commit(&self, changes: Vec<Change>, sync: bool) -> io::Result<()> {
        self.generation.tree.apply(changes).await?;
        if sync {
            self.generation.tree.sync().await?;
        }
        Ok(())
    }

    /// Goes on in a fresh tree, when that was asked for. Writers wait meanwhile: there are some megabytes to copy. A
    /// copy that fails is given up, and nothing has changed.
    async fn rewrite(&mut self) {
        self.retired = self.retired.take().and_then(|old| old.remove(&self.platform));
        let Some(first) = self.rewrite_from.take() else {
            return;
        };
        if self.failed.is_some() || self.retired.is_some() {
            return;
        }
        match self.generation.copied(&self.platform, &first).await {
            Ok(fresh) => {
                let tree = Arc::clone(&fresh.tree);
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(tree);
                self.retired = Some(std::mem::replace(&mut self.generation, fresh));
                self.doomed.retain(|key| *key >= first);
            }
            Err(error) => {
                tracing::warn!(
                    error = report(&error),
                    "the log could not be copied into a smaller file"
                );
            }
        }
    }
}
