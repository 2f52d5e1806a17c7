//! The log's tree, and another one that takes its place when its file has become too large.
//!
//! sled uses the space of what was removed again, but its file never shrinks. So what lives is copied into a fresh tree
//! beside, whose last key, written after everything else is durable, makes it the one that counts. Two folders take
//! turns.
//!
//! *Guarantees*: at every moment exactly one of the two counts, and it has everything that was acknowledged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use flotilla_report::report;

use crate::platform::{Change, OpenTreeError, Platform, Tree, TreeRange};

/// The folders; the first is that of a new replica.
const FOLDERS: [&str; 2] = ["log", "log-2"];
/// Which copy this is; a tree that is being filled has none yet. Sorts among the marks, behind the log.
const GENERATION_KEY: Bytes = Bytes::from_static(b"m:generation");
/// Behind all keys.
const END_KEY: Bytes = Bytes::from_static(b"n");
/// Changes that are copied as one batch: some hundred kilobytes.
const COPIED_AT_ONCE: usize = 64;

/// Whether a tree takes so much more than what lives in it that it is worth a copy. sled needs some two and a half times
/// what lives; what is more than `allowed_bytes` beyond that is a burst that is over.
pub(super) fn worth_rewriting(live_bytes: u64, disk_bytes: u64, allowed_bytes: u64) -> bool {
    disk_bytes > 3 * live_bytes + allowed_bytes
}

/// The tree that counts, and where it is.
pub(super) struct Generation {
    pub(super) tree: Arc<dyn Tree>,
    data_dir: PathBuf,
    folder: PathBuf,
    number: u64,
    cache_bytes: u64,
}

impl Generation {
    /// Opens the tree that counts in a replica's folder, and removes the other. Blocks.
    pub(super) fn open(
        platform: &Platform,
        data_dir: &Path,
        cache_bytes: u64,
    ) -> Result<Generation, OpenTreeError> {
        let mut newest: Option<Generation> = None;
        let mut stale = Vec::new();
        for name in FOLDERS {
            let folder = data_dir.join(name);
            // One that is not there is made only when there is no other.
            if !platform.trees.exists(&folder) && (name != FOLDERS[0] || other_exists(platform, data_dir)) {
                continue;
            }
            let tree = platform.trees.open(&folder, cache_bytes)?;
            let number = number(&*tree)?;
            let found = Generation {
                tree,
                data_dir: data_dir.to_owned(),
                folder,
                number,
                cache_bytes,
            };
            // Of two without a number the second is one that never was finished.
            let replaced = match &newest {
                Some(other) if other.number >= number => Some(found),
                _ => newest.replace(found),
            };
            stale.extend(replaced.map(|replaced| replaced.folder));
        }
        for folder in stale {
            platform.trees.remove(&folder)?;
        }
        newest.ok_or_else(|| OpenTreeError::Damaged("there is no log".to_owned()))
    }

    /// Copies what lies at or behind `first` into a fresh tree, durably. Blocks while it is polled.
    pub(super) async fn copied(&self, platform: &Platform, first: &Bytes) -> io::Result<Generation> {
        let other = FOLDERS
            .map(|name| self.data_dir.join(name))
            .into_iter()
            .find(|folder| *folder != self.folder)
            .unwrap_or_default();
        platform.trees.remove(&other)?;
        let tree = platform
            .trees
            .open(&other, self.cache_bytes)
            .map_err(io::Error::other)?;
        let mut living = self.tree.range(first.clone()..END_KEY);
        loop {
            let batch = next_batch(&mut living)?;
            if batch.is_empty() {
                break;
            }
            tree.apply(batch).await?;
        }
        tree.sync().await?;
        let number = self.number + 1;
        let mark = Bytes::copy_from_slice(&number.to_be_bytes());
        tree.apply(vec![Change::Put(GENERATION_KEY, mark)]).await?;
        tree.sync().await?;
        Ok(Generation {
            tree,
            data_dir: self.data_dir.clone(),
            folder: other,
            number,
            cache_bytes: self.cache_bytes,
        })
    }

    /// Removes the tree's folder, unless somebody still reads it: then it is given back.
    pub(super) fn remove(self, platform: &Platform) -> Option<Generation> {
        if Arc::strong_count(&self.tree) > 1 {
            return Some(self);
        }
        drop(self.tree);
        if let Err(error) = platform.trees.remove(&self.folder) {
            tracing::warn!(
                error = report(&error),
                folder = %self.folder.display(),
                "an old copy of the log stays until the next start"
            );
        }
        None
    }
}

fn other_exists(platform: &Platform, data_dir: &Path) -> bool {
    platform.trees.exists(&data_dir.join(FOLDERS[1]))
}

fn number(tree: &dyn Tree) -> Result<u64, OpenTreeError> {
    let Some(mark) = tree.get(&GENERATION_KEY)? else {
        return Ok(0);
    };
    let mark = mark.as_ref().try_into();
    let damaged = |_| OpenTreeError::Damaged("the number of its copy is not one".to_owned());
    mark.map(u64::from_be_bytes).map_err(damaged)
}

fn next_batch(living: &mut TreeRange) -> io::Result<Vec<Change>> {
    let pairs = living.filter(|pair| !matches!(pair, Ok((key, _)) if *key == GENERATION_KEY));
    pairs
        .take(COPIED_AT_ONCE)
        .map(|pair| pair.map(|(key, value)| Change::Put(key, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform() -> Platform {
        Platform::real(Arc::new(|_| {
            tonic::transport::Channel::from_static("http://127.0.0.1:1").connect_lazy()
        }))
    }

    fn change(key: &str) -> Change {
        Change::Put(Bytes::copy_from_slice(key.as_bytes()), Bytes::from_static(b"x"))
    }

    fn keys(generation: &Generation) -> Vec<String> {
        let all = generation.tree.range(Bytes::new()..END_KEY);
        let keys = all.map(|pair| String::from_utf8(pair.unwrap().0.to_vec()).unwrap());
        keys.filter(|key| key.as_bytes() != GENERATION_KEY).collect()
    }

    fn open(folder: &Path) -> Generation {
        Generation::open(&platform(), folder, 1 << 20).unwrap()
    }

    #[test]
    fn a_copy_is_worth_it_when_most_of_the_file_is_waste() {
        assert!(!worth_rewriting(10, 39, 10));
        assert!(worth_rewriting(10, 41, 10));
        assert!(!worth_rewriting(0, 10, 10));
    }

    #[tokio::test]
    async fn a_copy_has_what_lives_and_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut generation = open(folder.path());
        let changes = ["l1", "l2", "l3", "m:vote"].map(change);
        generation.tree.apply(changes.to_vec()).await.unwrap();
        // Back and forth between the two folders.
        for (number, first) in [(1, "l2"), (2, "l3"), (3, "l3")] {
            let copy = generation.copied(&platform(), &Bytes::from(first)).await.unwrap();
            assert!(generation.remove(&platform()).is_none());
            generation = copy;
            assert_eq!(generation.number, number);
            assert_eq!(keys(&generation).first().map(String::as_str), Some(first));
        }
        drop(generation);
        let generation = open(folder.path());
        assert_eq!(
            (keys(&generation), generation.number),
            (vec!["l3".to_owned(), "m:vote".to_owned()], 3)
        );
    }

    #[tokio::test]
    async fn a_copy_that_was_not_finished_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let generation = open(folder.path());
        generation.tree.apply(vec![change("l1")]).await.unwrap();
        generation.tree.sync().await.unwrap();
        drop(generation);
        let unfinished = folder.path().join(FOLDERS[1]);
        let tree = platform().trees.open(&unfinished, 1 << 20).unwrap();
        tree.apply(vec![change("l9")]).await.unwrap();
        drop(tree);
        let generation = open(folder.path());
        assert_eq!(keys(&generation), ["l1"]);
        assert!(!unfinished.exists());
        // Nor does the old tree count once the copy is whole, though its removal was cut short.
        let copy = generation.copied(&platform(), &Bytes::from("l1")).await.unwrap();
        copy.tree.apply(vec![change("l2")]).await.unwrap();
        copy.tree.sync().await.unwrap();
        drop((generation, copy));
        assert_eq!(keys(&open(folder.path())), ["l1", "l2"]);
        assert!(!folder.path().join(FOLDERS[0]).exists());
    }

    #[tokio::test]
    async fn a_tree_that_is_still_read_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let generation = open(folder.path());
        let reader = Arc::clone(&generation.tree);
        let kept = generation.remove(&platform()).unwrap();
        drop(reader);
        assert!(kept.remove(&platform()).is_none());
        assert!(!folder.path().join(FOLDERS[0]).exists());
    }
}
