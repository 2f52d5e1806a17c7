//! The store: which references name which images, and where their layers lie.
//!
//! ```text
//! index.json           references and images
//! blobs/sha256/<hex>   configurations
//! layers/<hex>/        unpacked layers by the digest of their tar stream
//! sizes/<hex>          bytes of a layer's files
//! holds/<holder>       layers that a container uses, one digest a line
//! used/<hex>           by its time: when an image was last asked for
//! archives/<hex>       compressed tar streams of layers, for other nodes
//! downloads/<hex>      blobs on their way here; a broken transfer goes on from them
//! scratch/             layers on their way in or out
//! lock, index.lock
//! ```
//!
//! *Guarantees*: an image that [`Store::resolve`] finds is complete, also after a power cut: layers are synced and
//! renamed into place before the index names them. What [`Store::hold`] returned stays until it is released.

mod garbage;

pub use garbage::Freed;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, syncfs};

use crate::files::{At, hex_of, lock, names_in, sha256, sync_folder, write_atomically};
use crate::index::{ImageRecord, Index, Origin, Target};
use crate::manifest::ConfigFile;
use crate::reference::is_digest;
use crate::{Limits, ParseReferenceError, normalize};

/// What an image says about the process it is made for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// First part of the command line.
    pub entrypoint: Vec<String>,
    /// Default arguments after the entrypoint.
    pub cmd: Vec<String>,
    /// Environment, in the image's order.
    pub env: Vec<(String, String)>,
    /// `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// Ports as written, for example `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// Signal that asks the process to stop, for example `SIGQUIT`.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// An image that is ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The normal reference, or id, that it was asked for by.
    pub reference: String,
    /// `sha256:…` of the image's configuration.
    pub id: String,
    /// `registry/name@sha256:…` of its manifest; an image out of a docker archive has none.
    pub digest: Option<String>,
    /// A registry is where it came from; an imported or built-in image came from none.
    pub is_pulled: bool,
    /// What it runs.
    pub config: ImageConfig,
    /// Unpacked layers, top first, as overlayfs wants its lower folders.
    pub layers: Vec<PathBuf>,
    /// Size of all layers unpacked.
    pub size_bytes: u64,
}

/// One line of `flotilla image list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Normal references that name it.
    pub references: Vec<String>,
    /// `sha256:…` of the image's configuration.
    pub id: String,
    /// Size of all layers unpacked.
    pub size_bytes: u64,
    /// RFC 3339 time at which the image was built, as the image says.
    pub created: Option<String>,
    /// Every `registry/name@sha256:…` that names it.
    pub digests: Vec<String>,
    /// It stays when the disk is full, because the operator wants it or because no registry has it.
    pub is_kept: bool,
    /// The operator wants it to stay.
    pub is_pinned: bool,
}

/// Why the store could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the store does not hold what it must.
    #[error("{path} is damaged: remove the image and import it again")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The reference is malformed.
    #[error("cannot look up the image")]
    Reference(#[from] ParseReferenceError),
    /// A holder's name is not a file name.
    #[error("{0:?} cannot name a user of an image: use letters, digits, '.', '_' and '-'")]
    Holder(String),
}

/// The image store of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
}

/// What [`Store::record`] needs to know of an image whose layers are in place.
pub(crate) struct NewImage<'a> {
    pub(crate) references: &'a [String],
    pub(crate) manifest: Option<&'a str>,
    pub(crate) config: &'a [u8],
    pub(crate) layers: Vec<String>,
    pub(crate) created: Option<String>,
    pub(crate) origin: Origin,
    /// Its registry gave it without credentials.
    pub(crate) public: bool,
}

impl Store {
    /// Opens the store in `root`, which is made when it does not exist.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with_limits(root, Limits::default())
    }

    /// Opens the store with other limits for what is imported.
    pub fn open_with_limits(root: impl Into<PathBuf>, limits: Limits) -> Result<Self, StoreError> {
        let store = Self {
            root: root.into(),
            limits,
        };
        for folder in [
            "blobs/sha256",
            "layers",
            "sizes",
            "holds",
            "used",
            "archives",
            "downloads",
            "scratch",
        ] {
            let folder = store.root.join(folder);
            fs::create_dir_all(&folder).at("create", &folder)?;
        }
        Ok(store)
    }

    /// All images, in the order of their first reference.
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let index = self.index()?;
        let mut images: Vec<ImageSummary> = index
            .images
            .iter()
            .map(|(id, record)| ImageSummary {
                references: index.references_of(id),
                id: id.clone(),
                size_bytes: record.size_bytes,
                created: record.created.clone(),
                digests: index.digests_of(id).into_iter().collect(),
                is_kept: record.is_kept(),
                is_pinned: record.pinned,
            })
            .collect();
        images.sort_by(|a, b| a.references.cmp(&b.references));
        Ok(images)
    }

    /// Removes a reference, or all references of an id, and what nothing needs any more. False: there was none.
    pub fn remove(&self, reference: &str) -> Result<bool, StoreError> {
        let normal = normal_or_id(reference)?;
        let removed = self.change_index(|index| {
            let removed = index.remove(&normal);
            index.drop_unreferenced();
            removed
        })?;
        self.collect_garbage()?;
        Ok(removed)
    }

    /// Finds an image by any spelling of its reference, by `name@digest` or by its id.
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>, StoreError> {
        let reference = normal_or_id(reference)?;
        let index = self.index()?;
        let Some(id) = index.find(&reference).map(str::to_owned) else {
            return Ok(None);
        };
        let Some(record) = index.images.get(&id) else {
            return Ok(None);
        };
        let path = self.blob(&id);
        let bytes = fs::read(&path).at("read", &path)?;
        let corrupt = |source: io::Error| StoreError::Corrupt {
            path: path.clone(),
            source,
        };
        if sha256(&bytes) != id {
            return Err(corrupt(io::Error::other("its digest does not match its name")));
        }
        let config: ConfigFile = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.into()))?;
        Ok(Some(Image {
            digest: index.digest_reference(&id, &reference),
            reference,
            is_pulled: record.origin == Origin::Pulled,
            config: config.into_image_config(),
            layers: record
                .layers
                .iter()
                .rev()
                .map(|layer| self.layer(layer))
                .collect(),
            size_bytes: record.size_bytes,
            id,
        }))
    }

    /// Like [`Store::resolve`], and keeps the image's layers from being collected until [`Store::release`].
    ///
    /// `holder` names the user of the layers, for example `<pod uid>.<container id>`; it survives restarts.
    pub fn hold(&self, reference: &str, holder: &str) -> Result<Option<Image>, StoreError> {
        let path = self.hold_path(holder)?;
        let _shared = self.lock_shared()?;
        let image = self.resolve(reference)?;
        if let Some(image) = &image {
            let names = image
                .layers
                .iter()
                .filter_map(|layer| layer.file_name()?.to_str());
            let layers = names.collect::<Vec<_>>().join("\n");
            write_atomically(&self.scratch_dir(), &path, layers.as_bytes())?;
            self.note_use(&image.id)?;
        }
        Ok(image)
    }

    /// Ends what [`Store::hold`] began; unknown holders are no error.
    pub fn release(&self, holder: &str) -> Result<(), StoreError> {
        let path = self.hold_path(holder)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
            _ => Ok(()),
        }
    }

    /// Everyone who holds layers.
    pub fn holders(&self) -> Result<Vec<String>, StoreError> {
        names_in(&self.root.join("holds"))
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn scratch_dir(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Where a layer's compressed tar is kept for other nodes.
    pub(crate) fn archive(&self, diff_id: &str) -> PathBuf {
        self.root.join("archives").join(hex_of(diff_id))
    }

    /// Where a blob is downloaded to. *Assumes* a digest.
    pub(crate) fn download(&self, digest: &str) -> PathBuf {
        self.root.join("downloads").join(hex_of(digest))
    }

    /// Keeps an image when the disk is full, or no longer. False: there is no such image.
    pub fn pin(&self, reference: &str, pinned: bool) -> Result<bool, StoreError> {
        let normal = normal_or_id(reference)?;
        self.change_index(|index| {
            let id = index.find(&normal).map(str::to_owned);
            let record = id.and_then(|id| index.images.get_mut(&id));
            record.map(|record| record.pinned = pinned).is_some()
        })
    }

    pub(crate) fn index(&self) -> Result<Index, StoreError> {
        Index::read(&self.root.join("index.json"))
    }

    /// Keeps the garbage collection away.
    pub(crate) fn lock_shared(&self) -> Result<Option<File>, StoreError> {
        lock(&self.root.join("lock"), FlockOperation::LockShared)
    }

    pub(crate) fn has_layer(&self, diff_id: &str) -> bool {
        self.layer(diff_id).is_dir()
    }

    /// Folder of an unpacked layer.
    pub(crate) fn layer(&self, diff_id: &str) -> PathBuf {
        self.root.join("layers").join(hex_of(diff_id))
    }

    /// Fills a scratch folder by `fill`, which returns the bytes of its files, and puts it in place as a layer.
    ///
    /// *Assumes* the shared lock.
    pub(crate) fn add_layer<E: From<StoreError>>(
        &self,
        diff_id: &str,
        fill: impl FnOnce(&Path) -> Result<u64, E>,
    ) -> Result<(), E> {
        let scratch = self.scratch_dir();
        let folder = tempfile::tempdir_in(&scratch).at("create a folder in", &scratch)?;
        let fresh = folder.path().join("layer");
        fs::create_dir(&fresh).at("create", &fresh)?;
        let bytes = fill(&fresh)?;
        File::open(&fresh)
            .and_then(|file| Ok(syncfs(file)?))
            .at("sync", &fresh)?;
        write_atomically(
            &scratch,
            &self.root.join("sizes").join(hex_of(diff_id)),
            bytes.to_string().as_bytes(),
        )?;
        let place = self.layer(diff_id);
        match fs::rename(&fresh, &place) {
            // Another process was faster; the content is the same.
            Err(_) if place.is_dir() => Ok(()),
            renamed => renamed
                .at("create", &place)
                .and_then(|()| sync_folder(&self.root.join("layers"))),
        }?;
        Ok(())
    }

    /// Names an image whose layers are in place. *Assumes* the shared lock.
    pub(crate) fn record(&self, image: NewImage<'_>) -> Result<(), StoreError> {
        let id = sha256(image.config);
        write_atomically(&self.scratch_dir(), &self.blob(&id), image.config)?;
        let sizes = image.layers.iter().map(|layer| self.layer_bytes(layer));
        let fresh = ImageRecord {
            size_bytes: sizes.sum(),
            layers: image.layers,
            created: image.created,
            origin: image.origin,
            pinned: false,
            public: image.public,
        };
        self.note_use(&id)?;
        let target = Target {
            id: id.clone(),
            manifest: image.manifest.map(str::to_owned),
        };
        self.change_index(|index| {
            let known = index.images.get(&id);
            let pinned = known.is_some_and(|known| known.pinned);
            // What was once imported is not sure to be in any registry.
            let origin = match known {
                Some(known) if fresh.origin == Origin::Pulled => known.origin,
                _ => fresh.origin,
            };
            let record = ImageRecord {
                pinned,
                origin,
                ..fresh
            };
            index.images.insert(id, record);
            index
                .references
                .extend(image.references.iter().map(|name| (name.clone(), target.clone())));
            index.drop_unreferenced();
        })
    }

    /// Bytes of a layer's files.
    fn layer_bytes(&self, diff_id: &str) -> u64 {
        let path = self.root.join("sizes").join(hex_of(diff_id));
        let size = fs::read_to_string(path).ok();
        size.and_then(|size| size.parse().ok()).unwrap_or(0)
    }

    fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T, StoreError> {
        let _exclusive = lock(&self.root.join("index.lock"), FlockOperation::LockExclusive)?;
        let mut index = self.index()?;
        let before = index.clone();
        let answer = change(&mut index);
        if index != before {
            index.write(&self.root.join("index.json"))?;
        }
        Ok(answer)
    }

    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(hex_of(digest))
    }

    fn hold_path(&self, holder: &str) -> Result<PathBuf, StoreError> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if holder.is_empty() || holder.len() > 255 || holder.starts_with('.') || !holder.bytes().all(letter) {
            return Err(StoreError::Holder(holder.to_owned()));
        }
        Ok(self.root.join("holds").join(holder))
    }
}

fn normal_or_id(reference: &str) -> Result<String, ParseReferenceError> {
    if is_digest(reference) {
        Ok(reference.to_owned())
    } else {
        normalize(reference)
    }
}

#[cfg(test)]
mod tests;
