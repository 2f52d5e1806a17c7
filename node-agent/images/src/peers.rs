//! Images from other nodes of the cluster, in place of or before a registry.
//!
//! A node gives away by name only what anybody may have: what was imported, and what a registry gave without
//! credentials. Layers are given to whoever knows their digest, which a registry tells only to those it lets in.
//! *Guarantees*: a layer that does not have the digest it was asked for by is not used; a peer that stands still is
//! given up, and the registry is asked.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::files::{At, sha256};
use crate::index::Origin;
use crate::layer::is_compressed;
use crate::{Store, StoreError, normalize};

/// A peer that sends nothing for this long is given up.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(10);
/// Between speed and size for what an archive held uncompressed.
const COMPRESSION_LEVEL: i32 = 1;

/// Why a peer did not give what was asked for.
pub type PeerError = Box<dyn Error + Send + Sync>;

/// The other nodes, however they are reached.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// The document by which a node describes an image ([`Store::describe_for_peers`]); none when no node has it.
    async fn image(&self, reference: &str) -> Result<Option<Vec<u8>>, PeerError>;
    /// A layer's compressed bytes ([`Store::layer_for_peers`]); none when no node has it. `reference` names an image that
    /// has the layer.
    async fn layer(&self, reference: &str, diff_id: &str) -> Result<Option<LayerBytes>, PeerError>;
}

/// A layer on its way here. An end without an error is the layer's end.
pub type LayerBytes = BoxStream<'static, Result<Bytes, PeerError>>;

/// How a node describes an image to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SharedImage {
    /// Digest of the manifest that the reference names.
    pub(crate) manifest: Option<String>,
    /// The configuration as it is; its digest is the image's id.
    pub(crate) config: String,
    /// Compressed sizes of the layers, bottom first.
    pub(crate) sizes: Vec<u64>,
    pub(crate) origin: Origin,
}

impl Store {
    /// What another node may know of an image by its name; none when it is not here, or not for everybody.
    pub fn describe_for_peers(&self, reference: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let normal = normalize(reference)?;
        let index = self.index()?;
        let Some(target) = index.references.get(&normal) else {
            return Ok(None);
        };
        let Some(record) = index.images.get(&target.id).filter(|record| record.is_public()) else {
            return Ok(None);
        };
        let path = self.blob(&target.id);
        let config = std::fs::read(&path).at("read", &path)?;
        let Ok(config) = String::from_utf8(config) else {
            return Ok(None);
        };
        let size = |layer: &String| Some(self.archive(layer).metadata().ok()?.len());
        let Some(sizes) = record.layers.iter().map(size).collect() else {
            return Ok(None);
        };
        let shared = SharedImage {
            manifest: target.manifest.clone(),
            config,
            sizes,
            origin: record.origin,
        };
        Ok(Some(
            serde_json::to_vec(&shared).expect("strings and numbers are plain data"),
        ))
    }

    /// A layer as another node gets it: a compressed tar.
    pub fn layer_for_peers(&self, diff_id: &str) -> Result<Option<File>, StoreError> {
        if !crate::reference::is_digest(diff_id) {
            return Ok(None);
        }
        let path = self.archive(diff_id);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("open", &path),
        }
    }

    /// Keeps a layer's blob for other nodes; a plain tar is compressed.
    pub(crate) fn keep_for_peers(&self, diff_id: &str, blob: impl Read) -> Result<(), StoreError> {
        let scratch = self.scratch_dir();
        let mut blob = BufReader::with_capacity(64 * 1024, blob);
        let mut file = NamedTempFile::new_in(&scratch).at("create a file in", &scratch)?;
        let path = self.archive(diff_id);
        let copied = if is_compressed(&mut blob).at("read", &path)? {
            io::copy(&mut blob, &mut file).map(drop)
        } else {
            zstd::stream::copy_encode(&mut blob, &mut file, COMPRESSION_LEVEL)
        };
        copied.at("write", file.path())?;
        file.persist(&path)
            .map_err(|error| error.error)
            .at("create", &path)?;
        Ok(())
    }
}

/// Takes a layer from a peer into a file of the store's scratch folder; at most `bytes_max` bytes.
pub(crate) async fn receive(
    store: &Store,
    mut layer: LayerBytes,
    bytes_max: u64,
    mut received: impl FnMut(u64),
) -> Result<NamedTempFile, PeerError> {
    let mut file = NamedTempFile::new_in(store.scratch_dir())?;
    let mut length = 0;
    while let Some(bytes) = tokio::time::timeout(STALL_LIMIT, layer.next())
        .await
        .map_err(|_| format!("it sent nothing for {} s", STALL_LIMIT.as_secs()))?
    {
        let bytes = bytes?;
        length += bytes.len() as u64;
        if length > bytes_max {
            return Err(format!("it sent more than {bytes_max} bytes").into());
        }
        received(bytes.len() as u64);
        file.write_all(&bytes)?;
    }
    file.flush()?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Reads a peer's description and the id of its image; none when it cannot be used.
pub(crate) fn understand(document: &[u8]) -> Option<(SharedImage, String)> {
    let shared: SharedImage = serde_json::from_slice(document).ok()?;
    let id = sha256(shared.config.as_bytes());
    Some((shared, id))
}
