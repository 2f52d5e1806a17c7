//! `/flotilla.dev/snapshot`: the whole cluster as one file, streamed. Only for those who may do everything: the
//! file holds the cluster's keys.

use async_trait::async_trait;
use bytes::Bytes;
use flotilla_api::Status;
use flotilla_report::report;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;

/// Writes the file of `flotilla snapshot save`.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// The file's bytes, of a moment after this call; dropping the stream stops whatever makes it.
    async fn open(&self) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status>;
}

/// The answer to a request for the file. A failure half-way cuts the file off, which its reader notices.
pub(crate) async fn respond(snapshots: &dyn Snapshots) -> Result<Response<Body>, Status> {
    let pieces = snapshots.open().await?;
    let whole = pieces.scan((), |(), piece| {
        let piece = piece.inspect_err(|status| {
            tracing::warn!(error = report(status), "a snapshot could not be sent to its end");
        });
        std::future::ready(piece.ok())
    });
    let mut response = Response::new(Body::stream(whole));
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}
