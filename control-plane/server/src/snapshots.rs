//! Writes the file of `flotilla snapshot save`: a linearizable moment of the store, and the cluster's keys.
//!
//! Writers are not stopped: the moment is a pointer into the store. The file is made while it is sent, a few
//! pieces ahead of its reader.

use std::io::{self, BufWriter, Write};

use async_trait::async_trait;
use bytes::Bytes;
use flotilla_api::Status;
use flotilla_apiserver::Snapshots;
use flotilla_backup::{FORMAT, Header, Keys};
use flotilla_raft::Replica;
use flotilla_report::report;
use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

use crate::material::Material;

const PIECE_BYTES: usize = 64 << 10;
/// Pieces that are made ahead of the reader.
const PIECES_AHEAD: usize = 4;

/// Makes snapshots of this server's cluster.
pub(crate) struct Snapshotter {
    replica: Replica,
    keys: Keys,
    server: String,
    tracker: TaskTracker,
}

impl Snapshotter {
    pub(crate) fn new(replica: Replica, material: &Material, tracker: TaskTracker) -> Self {
        Self {
            replica,
            keys: Keys {
                ca_certificate: material.ca.certificate_pem().to_owned(),
                ca_key: material.ca.key_pem().to_owned(),
                service_account_key: material.service_account_key_pem.clone(),
            },
            server: material.member.name.clone(),
            tracker,
        }
    }
}

#[async_trait]
impl Snapshots for Snapshotter {
    async fn open(&self) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let read = self.replica.read().await;
        let objects = read.map_err(|error| Status::unavailable(error.to_string()))?;
        let header = Header {
            format: FORMAT,
            flotilla: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.replica.cluster(),
            server: self.server.clone(),
            taken_at: jiff::Timestamp::now().to_string(),
            revision: objects.revision().0,
            term: self.replica.term(),
        };
        let keys = self.keys.clone();
        let (pieces, stream) = mpsc::channel(PIECES_AHEAD);
        self.tracker.spawn_blocking(move || {
            let failures = pieces.clone();
            let out = BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces));
            if let Err(error) = flotilla_backup::write(&header, &keys, &objects, out) {
                // A reader that is gone needs no word of it.
                let _ = failures.blocking_send(Err(Status::internal(report(&error))));
            }
        });
        Ok(ReceiverStream::new(stream).boxed())
    }
}

/// Sends what is written, and waits for the reader.
struct Pieces(mpsc::Sender<Result<Bytes, Status>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        match self.0.blocking_send(Ok(piece)) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
