//! An image or a layer from another node.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flotilla_report::report;

use super::image::{Job, blocking};
use super::{PullError, Pulled};
use crate::index::Origin;
use crate::layer::unpack_layer;
use crate::manifest::{ConfigFile, check};
use crate::peers::{Peers, SharedImage, receive, understand};
use crate::reference::Parts;
use crate::store::NewImage;

impl Job<'_> {
    /// The image from another node that has it; none when the registry is to be asked.
    pub(super) async fn pull_from_peers(&self) -> Option<Pulled> {
        let peers = self.peers?;
        // A digest is of a manifest, which only a registry can show.
        if Parts::of(self.reference).digest.is_some() {
            return None;
        }
        let asked = tokio::time::timeout(crate::peers::STALL_LIMIT, peers.image(self.reference)).await;
        let document = match asked {
            Ok(Ok(document)) => document?,
            Ok(Err(error)) => {
                tracing::debug!(
                    image = self.reference,
                    error = report(&*error),
                    "no node can be asked for an image"
                );
                return None;
            }
            Err(_) => return None,
        };
        let (shared, id) = understand(&document)?;
        // With `Always` the registry has the last word on what comes from it.
        if self.is_always && shared.origin == Origin::Pulled {
            return None;
        }
        match self.take(peers, shared).await {
            Ok(pulled) => Some(pulled),
            Err(error) => {
                tracing::info!(
                    image = self.reference,
                    id,
                    error = report(&error),
                    "an image could not be had from another node"
                );
                None
            }
        }
    }

    async fn take(&self, peers: &dyn Peers, shared: SharedImage) -> Result<Pulled, PullError> {
        let what = || self.reference.to_owned();
        let config: ConfigFile = serde_json::from_str(&shared.config)
            .map_err(|source| PullError::Document { what: what(), source })?;
        check(&config, shared.sizes.len(), self.store.limits().layers_max)?;
        let guard = self.lock().await?;
        let layers = config.rootfs.diff_ids.iter().zip(&shared.sizes);
        let missing: Vec<(&String, &u64)> =
            layers.filter(|(layer, _)| !self.store.has_layer(layer)).collect();
        let total = missing.iter().map(|(_, size)| **size).sum();
        self.counters.done.store(0, Ordering::Relaxed);
        self.counters.total.store(total, Ordering::Relaxed);
        for (diff_id, _) in missing {
            if !self.layer_from_peers(peers, diff_id, &guard).await {
                return Err(PullError::Peer {
                    digest: diff_id.clone(),
                });
            }
        }
        let (store, reference, config_bytes) = (self.store.clone(), what(), shared.config);
        blocking(move || {
            store.record(NewImage {
                references: std::slice::from_ref(&reference),
                manifest: shared.manifest.as_deref(),
                config: config_bytes.as_bytes(),
                layers: config.rootfs.diff_ids,
                created: config.created,
                origin: shared.origin,
                public: true,
            })?;
            drop(guard);
            store.collect_garbage()?;
            let image = store.resolve(&reference)?.ok_or(PullError::Stopped)?;
            let digest = shared.manifest.unwrap_or_else(|| image.id.clone());
            Ok(super::image::pulled(image.id, digest, image.size_bytes))
        })
        .await
    }

    /// Whether a layer could be had from another node; if not, nothing of it is left.
    pub(super) async fn layer_from_peers(
        &self,
        peers: &dyn Peers,
        diff_id: &str,
        guard: &Arc<Option<File>>,
    ) -> bool {
        let before = self.counters.done.load(Ordering::Relaxed);
        let taken = self.try_layer_from_peers(peers, diff_id, guard).await;
        match taken {
            Ok(is_here) => is_here,
            Err(why) => {
                self.counters.done.store(before, Ordering::Relaxed);
                tracing::info!(layer = diff_id, why, "a layer could not be had from another node");
                false
            }
        }
    }

    async fn try_layer_from_peers(
        &self,
        peers: &dyn Peers,
        diff_id: &str,
        guard: &Arc<Option<File>>,
    ) -> Result<bool, String> {
        let asked =
            tokio::time::timeout(crate::peers::STALL_LIMIT, peers.layer(self.reference, diff_id)).await;
        let found = asked
            .map_err(|_| "no node answered in time".to_owned())?
            .map_err(|error| report(&*error))?;
        let Some(layer) = found else { return Ok(false) };
        let count = |bytes| {
            self.counters.done.fetch_add(bytes, Ordering::Relaxed);
        };
        let bytes_max = self.store.limits().layer_bytes_max;
        let received = receive(self.store, layer, bytes_max, count)
            .await
            .map_err(|error| report(&*error))?;
        let (store, diff_id, guard) = (self.store.clone(), diff_id.to_owned(), guard.clone());
        let unpacked = blocking(move || {
            let _guard = guard;
            store.add_layer(&diff_id, |folder| {
                unpack_layer(received.as_file(), None, &diff_id, folder, &store.limits()).map_err(|source| {
                    PullError::Layer {
                        digest: diff_id.clone(),
                        source,
                    }
                })
            })?;
            let again = received.reopen().map_err(|source| PullError::Keep {
                path: received.path().to_owned(),
                source,
            })?;
            Ok(store.keep_for_peers(&diff_id, again)?)
        });
        unpacked.await.map(|()| true).map_err(|error| report(&error))
    }
}
