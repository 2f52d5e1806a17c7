//! What nothing needs any more is removed; and when an image was last used.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, statvfs};

use super::Store;
use crate::StoreError;
use crate::files::{At, hex_of, lock, names_in};
use crate::index::{ImageRecord, Index};
use crate::space::{Candidate, SpacePolicy, Usage, removal};

/// A broken download is of use until the pull's longest back-off is over.
const DOWNLOAD_AGE_MAX: Duration = Duration::from_secs(3600);

/// What went when the disk was too full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// Names of the images, or ids of those without a name.
    pub images: Vec<String>,
    /// Bytes of their layers.
    pub bytes: u64,
    /// Bytes that were to be freed.
    pub bytes_wanted: u64,
}

impl Store {
    /// Removes layers and blobs that nothing needs. Does nothing while an import runs; the next call will.
    pub fn collect_garbage(&self) -> Result<(), StoreError> {
        let Some(exclusive) = lock(&self.root.join("lock"), FlockOperation::NonBlockingLockExclusive)? else {
            return Ok(());
        };
        let index = self.index()?;
        let mut needed: BTreeSet<String> = index
            .images
            .values()
            .flat_map(|image| &image.layers)
            .map(|layer| hex_of(layer).to_owned())
            .collect();
        for holder in self.holders()? {
            let path = self.root.join("holds").join(holder);
            needed.extend(
                fs::read_to_string(&path)
                    .unwrap_or_default()
                    .lines()
                    .map(str::to_owned),
            );
        }
        let (layers, sizes, scratch) = (
            self.root.join("layers"),
            self.root.join("sizes"),
            self.scratch_dir(),
        );
        for name in names_in(&layers)?
            .into_iter()
            .filter(|name| !needed.contains(name))
        {
            remove(&scratch.join(&name))?;
            fs::rename(layers.join(&name), scratch.join(&name)).at("move", &layers.join(&name))?;
            remove(&sizes.join(&name))?;
        }
        let archives = self.root.join("archives");
        for name in names_in(&archives)?
            .into_iter()
            .filter(|name| !needed.contains(name))
        {
            remove(&archives.join(name))?;
        }
        let blobs = self.root.join("blobs/sha256");
        for name in names_in(&blobs)?
            .into_iter()
            .filter(|name| !index.images.contains_key(&format!("sha256:{name}")))
        {
            remove(&blobs.join(name))?;
        }
        self.forget_uses(&index)?;
        self.remove_old_downloads()?;
        // No import runs, so whatever is in scratch belongs to nobody; names are random, so later ones differ.
        let leftover = names_in(&scratch)?;
        drop(exclusive);
        leftover.iter().try_for_each(|name| remove(&scratch.join(name)))
    }

    /// Removes images that nobody needs when the disk is too full; returns the names or ids of those that went.
    pub fn free_space(&self, policy: &SpacePolicy) -> Result<Freed, StoreError> {
        let disk = statvfs(&self.root).at("look at the disk of", &self.root)?;
        let usage = Usage {
            capacity: disk.f_blocks.saturating_mul(disk.f_frsize),
            available: disk.f_bavail.saturating_mul(disk.f_frsize),
        };
        self.free_space_of(usage, policy)
    }

    /// The same for a disk that is as full as `usage` says.
    pub fn free_space_of(&self, usage: Usage, policy: &SpacePolicy) -> Result<Freed, StoreError> {
        let removal = removal(&self.candidates()?, usage, policy, SystemTime::now());
        let mut freed = Freed {
            images: Vec::new(),
            bytes: removal.bytes,
            bytes_wanted: removal.wanted,
        };
        if removal.ids.is_empty() {
            return Ok(freed);
        }
        freed.images = self.change_index(|index| {
            let names = |id: &String| match index.references_of(id) {
                names if names.is_empty() => vec![id.clone()],
                names => names,
            };
            let gone: Vec<String> = removal.ids.iter().flat_map(names).collect();
            for id in &removal.ids {
                index.remove(id);
            }
            index.drop_unreferenced();
            gone
        })?;
        self.collect_garbage()?;
        Ok(freed)
    }

    fn candidates(&self) -> Result<Vec<Candidate>, StoreError> {
        let mut held: Vec<BTreeSet<String>> = Vec::new();
        for holder in self.holders()? {
            let layers = fs::read_to_string(self.root.join("holds").join(holder)).unwrap_or_default();
            held.push(layers.lines().map(str::to_owned).collect());
        }
        let index = self.index()?;
        let candidate = |(id, record): (&String, &ImageRecord)| {
            let is_used =
                |layers: &BTreeSet<String>| record.layers.iter().all(|layer| layers.contains(hex_of(layer)));
            let size = |layer: &String| (layer.clone(), self.layer_bytes(layer));
            Candidate {
                id: id.clone(),
                layers: record.layers.iter().map(size).collect(),
                is_kept: record.is_kept() || held.iter().any(is_used),
                last_used: self.last_used(id).unwrap_or(SystemTime::UNIX_EPOCH),
            }
        };
        Ok(index.images.iter().map(candidate).collect())
    }

    /// When an image was last asked for; none when it never was.
    fn last_used(&self, id: &str) -> Option<SystemTime> {
        let path = self.root.join("used").join(hex_of(id));
        fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
    }

    /// Not synced: after a power cut an image may seem to have been unused for longer than it was.
    pub(super) fn note_use(&self, id: &str) -> Result<(), StoreError> {
        let path = self.root.join("used").join(hex_of(id));
        let now = SystemTime::now();
        let noted = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(now));
        noted.at("write", &path)
    }

    fn forget_uses(&self, index: &Index) -> Result<(), StoreError> {
        let folder = self.root.join("used");
        let names = names_in(&folder)?;
        let mut unknown = names
            .iter()
            .filter(|name| !index.images.contains_key(&format!("sha256:{name}")));
        unknown.try_for_each(|name| remove(&folder.join(name)))
    }

    fn remove_old_downloads(&self) -> Result<(), StoreError> {
        let folder = self.root.join("downloads");
        for name in names_in(&folder)? {
            let path = folder.join(name);
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            if age.is_some_and(|age| age > DOWNLOAD_AGE_MAX) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Removes a file or a folder with all that is in it; it may be gone already.
fn remove(path: &Path) -> Result<(), StoreError> {
    let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_folder {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}
