//! Images from other nodes, over any server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flotilla_images::{LayerBytes, PeerError, Peers};
use flotilla_proto::node::nodes_client::NodesClient;
use flotilla_proto::node::{BlobChunk, BlobRequest};
use futures::{StreamExt as _, stream};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::follow::Servers;

/// A server searches for 5 s at most.
const ANSWER_LIMIT: Duration = Duration::from_secs(7);
/// A description of an image is a configuration and a few numbers.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// The other nodes of the cluster.
pub(crate) struct ClusterPeers {
    servers: Arc<Servers>,
}

impl ClusterPeers {
    pub(crate) fn new(servers: Arc<Servers>) -> Arc<Self> {
        Arc::new(Self { servers })
    }

    async fn ask(&self, image: &str, layer: &str) -> Result<Option<Streaming<BlobChunk>>, PeerError> {
        let mut failure: PeerError = "no server answers".into();
        for address in self.servers.in_order() {
            let request = BlobRequest {
                image: image.to_owned(),
                layer: layer.to_owned(),
            };
            let mut client = NodesClient::new(self.servers.channel(&address));
            match timeout(ANSWER_LIMIT, client.blob(request)).await {
                Ok(Ok(answer)) => return Ok(Some(answer.into_inner())),
                // A server of before this call existed knows of no other node either.
                Ok(Err(status)) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                    return Ok(None);
                }
                Ok(Err(status)) => failure = status.into(),
                Err(_) => {}
            }
        }
        Err(failure)
    }
}

#[async_trait]
impl Peers for ClusterPeers {
    async fn image(&self, reference: &str) -> Result<Option<Vec<u8>>, PeerError> {
        let Some(mut chunks) = self.ask(reference, "").await? else {
            return Ok(None);
        };
        let mut document = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            document.extend_from_slice(&chunk.data);
            if document.len() > DOCUMENT_BYTES_MAX {
                return Err("another node's description of an image is far too long".into());
            }
        }
        Ok(Some(document))
    }

    async fn layer(&self, reference: &str, diff_id: &str) -> Result<Option<LayerBytes>, PeerError> {
        let Some(chunks) = self.ask(reference, diff_id).await? else {
            return Ok(None);
        };
        let bytes = stream::try_unfold(chunks, |mut chunks| async {
            let chunk = chunks.message().await?;
            Ok::<_, PeerError>(chunk.map(|chunk| (chunk.data, chunks)))
        });
        Ok(Some(bytes.boxed()))
    }
}
