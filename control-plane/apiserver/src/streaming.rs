//! `pods/exec`, `pods/attach`, `pods/portforward`: requests that turn their connection into streams.

use async_trait::async_trait;
use bytes::Bytes;
use flotilla_api::Status;
use flotilla_tunnel::Ends;

/// Opens streams to nodes, wherever those are.
#[async_trait]
pub trait NodeStreams: Send + Sync {
    /// A stream of one of [`flotilla_tunnel::request`]'s kinds. The node has begun what was asked when this returns.
    async fn open(&self, node: &str, kind: &str, request_json: Bytes) -> Result<Ends, Status>;
}
