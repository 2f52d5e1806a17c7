//! One image on its way from a registry into the store.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use serde::de::DeserializeOwned;

use super::blob::{Blob, Opened};
use super::targets::Target;
use super::{Counters, PullError, Pulled};
use crate::Store;
use crate::index::Origin;
use crate::layer::unpack_layer;
use crate::manifest::{ConfigFile, Descriptor, INDEX_DEPTH_MAX, Manifest, check, choose};
use crate::peers::Peers;
use crate::reference::{Parts, is_digest};
use crate::registries::Registries;
use crate::registry::{Client, Document};
use crate::store::NewImage;

/// Layers of one image that are downloaded at the same time.
const LAYERS_AT_ONCE: usize = 4;

/// What to pull, from where, to where.
pub(super) struct Job<'a> {
    pub(super) store: &'a Store,
    pub(super) registries: &'a Registries,
    pub(super) reference: &'a str,
    pub(super) targets: &'a [Target],
    pub(super) counters: &'a Counters,
    pub(super) peers: Option<&'a dyn Peers>,
    /// The registry is to be asked in any case.
    pub(super) is_always: bool,
}

/// An image as a registry describes it.
struct Described {
    /// Of the manifest or index that the reference names.
    digest: String,
    config_bytes: Vec<u8>,
    config: ConfigFile,
    layers: Vec<Descriptor>,
}

impl Job<'_> {
    /// Asks one place after the other.
    pub(super) async fn pull(&self) -> Result<Pulled, PullError> {
        if let Some(pulled) = self.pull_from_peers().await {
            return Ok(pulled);
        }
        let mut failures = Vec::new();
        for target in self.targets {
            match self.pull_from(target).await {
                Err(error) if error.is_of_place() => failures.push(error),
                finished => return finished,
            }
        }
        match failures.pop() {
            Some(only) if failures.is_empty() => Err(only),
            Some(last) => {
                failures.push(last);
                Err(PullError::Everywhere(failures))
            }
            None => Err(PullError::Stopped),
        }
    }

    async fn pull_from(&self, target: &Target) -> Result<Pulled, PullError> {
        let mut last = PullError::Stopped;
        for user in &target.users {
            let config = self.registries.host(&target.place.host);
            let client = Client::new(target.place.clone(), config, user.clone())?;
            match self.pull_with(&client, user.is_none()).await {
                Err(error) if error.is_of_user() => last = error,
                finished => return finished,
            }
        }
        Err(last)
    }

    async fn pull_with(&self, client: &Client, is_public: bool) -> Result<Pulled, PullError> {
        let parts = Parts::of(self.reference);
        let wanted = parts.digest.or(parts.tag).unwrap_or("latest");
        let named = client
            .manifest(wanted, self.store.limits().document_bytes_max)
            .await?;
        if let Some(present) = self.present(&named.digest)? {
            return Ok(present);
        }
        let described = self.describe(client, named).await?;
        // Held until the image is recorded, so that nobody collects its layers in between.
        let guard = self.lock().await?;
        self.fetch_layers(client, &described, &guard).await?;
        self.record(described, is_public, guard).await
    }

    /// The image, if this very manifest is in the store already.
    fn present(&self, digest: &str) -> Result<Option<Pulled>, PullError> {
        let target = self.store.index()?.references.get(self.reference).cloned();
        if target.and_then(|target| target.manifest).as_deref() != Some(digest) {
            return Ok(None);
        }
        let image = self.store.resolve(self.reference)?;
        let complete = image.filter(|image| image.layers.iter().all(|layer| layer.is_dir()));
        Ok(complete.map(|image| pulled(image.id, digest.to_owned(), image.size_bytes)))
    }

    async fn describe(&self, client: &Client, named: Document) -> Result<Described, PullError> {
        let limits = self.store.limits();
        let digest = named.digest.clone();
        let mut document = named;
        let mut manifest: Manifest = parse(&document.digest, &document.bytes)?;
        for _ in 0..INDEX_DEPTH_MAX {
            if manifest.manifests.is_empty() {
                break;
            }
            let chosen = choose(&manifest.manifests).ok_or_else(|| platforms(&manifest.manifests))?;
            document = client.manifest(&chosen.digest, limits.document_bytes_max).await?;
            manifest = parse(&document.digest, &document.bytes)?;
        }
        let descriptor = manifest.config.ok_or_else(|| PullError::Platform(Vec::new()))?;
        for layer in &manifest.layers {
            check_layer(layer, limits.layer_bytes_max)?;
        }
        let config_bytes = client
            .document(digest_of(&descriptor)?, limits.document_bytes_max)
            .await?;
        let config: ConfigFile = parse(&descriptor.digest, &config_bytes)?;
        check(&config, manifest.layers.len(), limits.layers_max)?;
        Ok(Described {
            digest,
            config_bytes,
            config,
            layers: manifest.layers,
        })
    }

    async fn fetch_layers(
        &self,
        client: &Client,
        described: &Described,
        guard: &Arc<Option<File>>,
    ) -> Result<(), PullError> {
        let diff_ids = &described.config.rootfs.diff_ids;
        let mut missing: Vec<(&Descriptor, &str)> = Vec::new();
        for (layer, diff_id) in described.layers.iter().zip(diff_ids) {
            let is_listed = missing.iter().any(|(_, listed)| listed == diff_id);
            if !is_listed && !self.store.has_layer(diff_id) {
                missing.push((layer, diff_id));
            }
        }
        let total = missing.iter().filter_map(|(layer, _)| layer.size).sum();
        self.counters.done.store(0, Ordering::Relaxed);
        self.counters.total.store(total, Ordering::Relaxed);
        let work: Vec<BoxFuture<'_, Result<(), PullError>>> = missing
            .into_iter()
            .map(|(layer, diff_id)| self.fetch_layer(client, layer, diff_id, guard).boxed())
            .collect();
        stream::iter(work)
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn fetch_layer(
        &self,
        client: &Client,
        layer: &Descriptor,
        diff_id: &str,
        guard: &Arc<Option<File>>,
    ) -> Result<(), PullError> {
        if let Some(peers) = self.peers
            && self.layer_from_peers(peers, diff_id, guard).await
        {
            return Ok(());
        }
        let blob = Blob {
            digest: &layer.digest,
            size: layer.size,
            bytes_max: self.store.limits().layer_bytes_max,
            counters: self.counters,
            path: self.store.download(&layer.digest),
        };
        let is_needed = || !self.store.has_layer(diff_id);
        let open = |offset| open_blob(client, &layer.digest, offset).boxed();
        let Some(download) = blob.fetch(&is_needed, &open).await? else {
            return Ok(());
        };
        let unpacked = self
            .unpack(&layer.digest, diff_id, blob.path.clone(), guard.clone())
            .await;
        match &unpacked {
            Ok(()) => download.keep(&self.store.archive(diff_id)),
            // Nothing good comes from keeping what was refused.
            Err(_) => download.discard(),
        }
        unpacked
    }

    async fn unpack(
        &self,
        digest: &str,
        diff_id: &str,
        path: PathBuf,
        guard: Arc<Option<File>>,
    ) -> Result<(), PullError> {
        let (store, digest, diff_id) = (self.store.clone(), digest.to_owned(), diff_id.to_owned());
        blocking(move || {
            // Unpacking goes on when the pull is dropped, and needs the lock until its end.
            let _guard = guard;
            let file = open(&path)?;
            store.add_layer(&diff_id, |folder| {
                unpack_layer(file, None, &diff_id, folder, &store.limits()).map_err(|source| {
                    PullError::Layer {
                        digest: digest.clone(),
                        source,
                    }
                })
            })
        })
        .await
    }

    async fn record(
        &self,
        described: Described,
        public: bool,
        guard: Arc<Option<File>>,
    ) -> Result<Pulled, PullError> {
        let (store, reference) = (self.store.clone(), self.reference.to_owned());
        blocking(move || {
            let Described {
                digest,
                config_bytes,
                config,
                ..
            } = described;
            store.record(NewImage {
                references: std::slice::from_ref(&reference),
                manifest: Some(&digest),
                config: &config_bytes,
                layers: config.rootfs.diff_ids,
                created: config.created,
                origin: Origin::Pulled,
                public,
            })?;
            drop(guard);
            // A tag that moved on leaves layers behind.
            store.collect_garbage()?;
            let image = store.resolve(&reference)?.ok_or(PullError::Stopped)?;
            Ok(pulled(image.id, digest, image.size_bytes))
        })
        .await
    }

    pub(super) async fn lock(&self) -> Result<Arc<Option<File>>, PullError> {
        let store = self.store.clone();
        blocking(move || Ok(Arc::new(store.lock_shared()?))).await
    }
}

async fn open_blob<'c>(client: &'c Client, digest: &'c str, offset: u64) -> Result<Opened<'c>, PullError> {
    let answer = client.blob(digest, offset).await?;
    let bytes = stream::try_unfold(answer.body, move |mut body| async move {
        let data = client.next(&mut body).await?;
        Ok::<_, PullError>(data.map(|data| (data, body)))
    });
    Ok(Opened {
        start: answer.start,
        bytes: bytes.boxed(),
    })
}

pub(super) fn pulled(id: String, digest: String, size_bytes: u64) -> Pulled {
    Pulled {
        id,
        digest,
        size_bytes,
        took: Duration::ZERO,
        took_with_waiting: Duration::ZERO,
    }
}

/// Runs what reads and writes files beside the tasks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(PullError::Stopped))
}

fn open(path: &Path) -> Result<File, PullError> {
    File::open(path).map_err(|source| PullError::Keep {
        path: path.to_owned(),
        source,
    })
}

fn parse<T: DeserializeOwned>(digest: &str, bytes: &[u8]) -> Result<T, PullError> {
    serde_json::from_slice(bytes).map_err(|source| PullError::Document {
        what: digest.to_owned(),
        source,
    })
}

fn digest_of(descriptor: &Descriptor) -> Result<&str, PullError> {
    if is_digest(&descriptor.digest) {
        Ok(&descriptor.digest)
    } else {
        Err(PullError::BadDigest(descriptor.digest.clone()))
    }
}

fn check_layer(layer: &Descriptor, max: u64) -> Result<(), PullError> {
    let digest = digest_of(layer)?.to_owned();
    let kind = layer.media_type.as_deref().unwrap_or_default();
    if !kind.is_empty() && (!kind.contains("tar") || kind.contains("encrypted")) {
        let kind = kind.to_owned();
        return Err(PullError::NotAnImage { digest, kind });
    }
    match layer.size {
        Some(size) if size > max => Err(PullError::TooLarge { digest, size, max }),
        _ => Ok(()),
    }
}

fn platforms(manifests: &[Descriptor]) -> PullError {
    let platforms = manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
    let named = platforms.map(|platform| format!("{}/{}", platform.os, platform.architecture));
    PullError::Platform(named.filter(|name| name != "unknown/unknown").collect())
}
