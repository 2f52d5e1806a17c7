//! `blob`: something of an image, for another node.

use std::io::Cursor;

use flotilla_api::{Reason, Status};
use flotilla_report::report;
use flotilla_tunnel::Ends;
use flotilla_tunnel::copy::from_reader;
use flotilla_tunnel::request::{BlobRequest, DATA};

use super::Streams;

/// What is sent.
pub(super) enum Blob {
    Document(Vec<u8>),
    Layer(tokio::fs::File),
}

/// Looks whether it is here, and may be given away.
pub(super) async fn begin(streams: &Streams, wanted: BlobRequest) -> Result<Blob, Status> {
    let machine = streams.surroundings.machine.clone();
    let looked = tokio::task::spawn_blocking(move || match wanted {
        BlobRequest::Image(reference) => Ok(machine.describe_for_peers(&reference)?.map(Blob::Document)),
        BlobRequest::Layer(digest) => {
            let layer = machine.layer_for_peers(&digest)?;
            Ok(layer.map(|file| Blob::Layer(tokio::fs::File::from_std(file))))
        }
    });
    let absent = || Status::new(Reason::NotFound, "this node does not have it".to_owned());
    let found: Result<Option<Blob>, flotilla_images::StoreError> = looked.await.map_err(|_| absent())?;
    found
        .map_err(|error| Status::internal(report(&error)))?
        .ok_or_else(absent)
}

/// Sends it.
pub(super) async fn run(blob: Blob, ends: Ends) {
    let sent = match blob {
        Blob::Document(bytes) => from_reader(&mut Cursor::new(bytes), &ends.outgoing, DATA).await,
        Blob::Layer(mut file) => from_reader(&mut file, &ends.outgoing, DATA).await,
    };
    if let Ok(Err(error)) = sent {
        // The other node sees an end without a close, and asks elsewhere.
        tracing::warn!(error = report(&error), "a layer cannot be read for another node");
    }
}
