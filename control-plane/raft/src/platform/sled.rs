//! Trees of sled.
//!
//! sled's own `flush` is no barrier on Linux (`sync_file_range` only), so a sync flushes sled's buffers to the file
//! and then calls `fdatasync` on a descriptor of our own.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_store::planted::{PlantedBug, is_planted};
use futures::future::{BoxFuture, FutureExt as _};

use super::files::{allocated_bytes, sync_folder};
use super::{Change, OpenTreeError, Tree, TreeRange, Trees};

/// Trees of sled.
#[derive(Clone, Copy, Debug)]
pub struct SledTrees;

struct SledTree {
    db: sled::Db,
    file: File,
}

impl Trees for SledTrees {
    fn open(&self, folder: &Path, cache_bytes: u64) -> Result<Arc<dyn Tree>, OpenTreeError> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .open()
            .map_err(|error| match error {
                sled::Error::Io(source) => OpenTreeError::Io(source),
                error => OpenTreeError::Damaged(error.to_string()),
            })?;
        let file = File::open(folder.join("db"))?;
        sync_folder(folder)?;
        Ok(Arc::new(SledTree { db, file }))
    }

    fn exists(&self, folder: &Path) -> bool {
        folder.exists()
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => folder.parent().map_or(Ok(()), sync_folder),
        }
    }
}

impl SledTree {
    fn apply_now(&self, changes: Vec<Change>) -> Result<(), sled::Error> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Put(key, value) => batch.insert(&key[..], &value[..]),
                Change::Remove(key) => batch.remove(&key[..]),
            }
        }
        self.db.apply_batch(batch)
    }

    fn sync_now(&self) -> io::Result<()> {
        self.db.flush()?;
        if is_planted(PlantedBug::SkipDataSync) {
            return Ok(());
        }
        self.file.sync_data()
    }
}

impl Tree for SledTree {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let value = self.db.get(key)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range(&self, keys: Range<Bytes>) -> TreeRange {
        Box::new(self.db.range(keys).map(|found| {
            let (key, value) = found?;
            Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
        }))
    }

    fn is_empty(&self) -> bool {
        self.db.is_empty()
    }

    fn bytes_on_disk(&self) -> io::Result<u64> {
        Ok(allocated_bytes(&self.file.metadata()?))
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, io::Result<()>> {
        async move { self.apply_now(changes).map_err(io::Error::from) }.boxed()
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        async move { self.sync_now() }.boxed()
    }
}
