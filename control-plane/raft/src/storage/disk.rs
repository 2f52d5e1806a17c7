//! sled behind one writing thread that makes writes durable together.
//!
//! *Guarantees*: `done` of a write is called with `Ok` only after the write, and all before it, would survive
//! a power cut. After a failed write or sync nothing is acknowledged any more: what a disk kept of a failed
//! sync is unknown, and a second sync that succeeds proves nothing.
//!
//! sled's own `flush` is no barrier on Linux (`sync_file_range` only), so the thread flushes sled's buffers to
//! the file and then calls `fdatasync` on a descriptor of its own.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

/// Called when a write is durable, or surely is not known to be.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// One change of sled's tree.
pub(super) enum Change {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key.
    Remove(Bytes),
}

enum Command {
    /// Changes that become durable as one, in the order of the commands.
    Write(Vec<Change>, Done),
    /// Keys that nobody reads any more; removed bit by bit.
    Forget(Vec<Bytes>),
    Stop,
}

/// Handle of the writing thread.
pub(super) struct Disk {
    db: Mutex<Option<sled::Db>>,
    commands: Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Disk {
    /// Opens the tree in a folder and starts its thread.
    pub(super) fn open(folder: &Path, cache_bytes: u64) -> Result<Disk, sled::Error> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .open()?;
        let file = File::open(folder.join("db"))?;
        super::sync_folder(folder)?;
        let (commands, receiver) = channel();
        let mut writer = Writer {
            db: db.clone(),
            file,
            doomed: VecDeque::new(),
            failed: None,
        };
        let thread = std::thread::Builder::new()
            .name("raft-disk".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(Disk {
            db: Mutex::new(Some(db)),
            commands,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The tree, for reads.
    pub(super) fn db(&self) -> io::Result<sled::Db> {
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        db.clone()
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
        // A thread that has stopped removes nothing; the next start does.
        let _ = self.commands.send(Command::Forget(keys));
    }

    /// Finishes what is queued and lets go of the files. Blocks.
    pub(super) fn close(&self) {
        let _ = self.commands.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the disk thread had panicked");
        }
        self.db.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Disk {
    /// The folder is free once the last handle is gone, however the replica ended.
    fn drop(&mut self) {
        self.close();
    }
}

struct Writer {
    db: sled::Db,
    file: File,
    doomed: VecDeque<Bytes>,
    failed: Option<Arc<str>>,
}

/// Removals that may ride along with one write: a purge of thousands of entries must not delay an append.
const FORGOTTEN_PER_ROUND: usize = 128;
/// Writes that one sync makes durable; more only delays the first of them.
const WRITES_PER_ROUND: usize = 1024;

impl Writer {
    fn run(&mut self, commands: &Receiver<Command>) {
        let mut stop = false;
        while !stop {
            let mut batch = sled::Batch::default();
            let mut waiting = Vec::new();
            if self.doomed.is_empty() {
                match commands.recv() {
                    Ok(command) => stop |= self.take(command, &mut batch, &mut waiting),
                    Err(_) => return,
                }
            }
            while !stop && waiting.len() < WRITES_PER_ROUND {
                let Ok(command) = commands.try_recv() else { break };
                stop |= self.take(command, &mut batch, &mut waiting);
            }
            self.forget_some(&mut batch);
            let result = self.commit(batch, !waiting.is_empty());
            for done in waiting {
                done(match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::other(Arc::clone(error).to_string())),
                });
            }
        }
    }

    /// Adds a command to the round; true when it is the last.
    fn take(&mut self, command: Command, batch: &mut sled::Batch, waiting: &mut Vec<Done>) -> bool {
        match command {
            Command::Write(changes, done) => {
                for change in changes {
                    match change {
                        Change::Put(key, value) => batch.insert(&key[..], &value[..]),
                        Change::Remove(key) => batch.remove(&key[..]),
                    }
                }
                waiting.push(done);
                false
            }
            Command::Forget(keys) => {
                self.doomed.extend(keys);
                false
            }
            Command::Stop => true,
        }
    }

    fn forget_some(&mut self, batch: &mut sled::Batch) {
        let count = self.doomed.len().min(FORGOTTEN_PER_ROUND);
        for key in self.doomed.drain(..count) {
            batch.remove(&key[..]);
        }
    }

    fn commit(&mut self, batch: sled::Batch, sync: bool) -> Result<(), Arc<str>> {
        if let Some(failed) = &self.failed {
            return Err(Arc::clone(failed));
        }
        let result = self.try_commit(batch, sync);
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

    fn try_commit(&self, batch: sled::Batch, sync: bool) -> Result<(), sled::Error> {
        self.db.apply_batch(batch)?;
        if sync {
            self.db.flush()?;
            self.file.sync_data()?;
        }
        Ok(())
    }
}
