//! Container logs, asked of the node that has them over its session with this server.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use flotilla_api::Status;
use flotilla_apiserver::{LogOptions, PodLogs};
use flotilla_proto::node::{LogCancel, LogChunk, LogMore, LogRequest, server_message::Kind as Said};
use futures::{Stream, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use super::{Nodes, Outbox, say, streams::unreached};

/// Chunks of one log that wait for a slow reader: what an agent may send unasked, what one grant adds, and room for
/// the error that ends it.
const CHUNKS_MAX: usize = 64;
/// Chunks that are granted at a time, once as many have been read.
const GRANT_CHUNKS: u32 = 16;

type Chunks = mpsc::Sender<Result<Bytes, Status>>;

/// The logs that are being read through this server.
#[derive(Default)]
pub(super) struct LogStreams {
    readers: Arc<Mutex<HashMap<u64, Reader>>>,
    next: AtomicU64,
}

struct Reader {
    session: u64,
    chunks: Chunks,
}

impl LogStreams {
    /// Hands a chunk on to its reader, if it comes over the session that was asked for it: no node may write into
    /// another's log. An agent that sends more than it was granted loses the reader.
    pub(super) fn deliver(&self, session: u64, chunk: LogChunk) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = readers
            .get(&chunk.request)
            .filter(|reader| reader.session == session);
        let Some(reader) = asked else {
            return;
        };
        let mut keep = true;
        if !chunk.data.is_empty() {
            keep = reader.chunks.try_send(Ok(chunk.data)).is_ok();
        }
        if !chunk.error.is_empty() {
            // With the reader gone or stuck there is nobody to tell.
            let _ = reader.chunks.try_send(Err(Status::bad_request(chunk.error)));
        }
        if chunk.end || !keep {
            readers.remove(&chunk.request);
        }
    }

    /// Ends the logs that came over a session that is gone.
    pub(super) fn end_session(&self, session: u64) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|_, reader| reader.session != session);
    }

    fn open(&self, session: u64, outbox: Outbox) -> LogStream {
        let request = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.insert(request, Reader { session, chunks });
        LogStream {
            request,
            receiver,
            ungranted: 0,
            outbox,
            readers: Arc::downgrade(&self.readers),
        }
    }
}

/// One log on its way to a client. Dropping it stops the node from sending more.
struct LogStream {
    request: u64,
    receiver: mpsc::Receiver<Result<Bytes, Status>>,
    /// Chunks read since the last grant.
    ungranted: u32,
    outbox: Outbox,
    readers: Weak<Mutex<HashMap<u64, Reader>>>,
}

impl Stream for LogStream {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.receiver.poll_recv(context);
        if matches!(polled, Poll::Ready(Some(_))) {
            self.count_read();
        }
        polled
    }
}

impl LogStream {
    /// Grants the agent more once enough was read. A full outbox only delays the grant.
    fn count_read(&mut self) {
        self.ungranted += 1;
        if self.ungranted >= GRANT_CHUNKS {
            let more = LogMore {
                request: self.request,
                chunks: self.ungranted,
            };
            if self.outbox.try_send(say(Said::LogMore(more))).is_ok() {
                self.ungranted = 0;
            }
        }
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        let Some(readers) = self.readers.upgrade() else {
            return;
        };
        let unfinished = readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.request)
            .is_some();
        if unfinished {
            // An agent that does not hear it stops when its session ends.
            let _ = self.outbox.try_send(say(Said::LogCancel(LogCancel {
                request: self.request,
            })));
        }
    }
}

#[async_trait::async_trait]
impl PodLogs for Nodes {
    async fn open(
        &self,
        pod: &Pod,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .unwrap_or_default();
        let session = self.session_of(node).ok_or_else(|| {
            unreached(&format!(
                "node {node:?} has no connection to this server, so its logs cannot be read now"
            ))
        })?;
        let stream = self.inner.logs.open(session.number, session.outbox.clone());
        let request = log_request(stream.request, pod, options);
        let sent = session.outbox.send(say(Said::Log(request))).await;
        sent.map_err(|_| unreached(&format!("node {node:?} has just gone away")))?;
        Ok(Box::pin(stream))
    }
}

fn log_request(request: u64, pod: &Pod, options: LogOptions) -> LogRequest {
    let meta = &pod.metadata;
    LogRequest {
        request,
        namespace: meta.namespace.clone().unwrap_or_default(),
        pod_name: meta.name.clone().unwrap_or_default(),
        pod_uid: meta.uid.clone().unwrap_or_default(),
        container: options.container,
        follow: options.follow,
        previous: options.previous,
        timestamps: options.timestamps,
        tail_lines: options.tail_lines.map(whole),
        since_unix_nanos: options
            .since
            .and_then(|since| i64::try_from(since.as_nanosecond()).ok()),
        limit_bytes: options.limit_bytes.map(whole),
    }
}

/// More than fits is as good as no limit.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn chunk(request: u64, text: &'static str) -> LogChunk {
        LogChunk {
            request,
            data: Bytes::from_static(text.as_bytes()),
            ..LogChunk::default()
        }
    }

    #[test]
    fn a_node_cannot_write_into_anothers_log() {
        let (outbox, _agent) = mpsc::channel(1);
        let streams = LogStreams::default();
        let mut stream = streams.open(7, outbox);
        streams.deliver(8, chunk(stream.request, "forged"));
        streams.deliver(7, chunk(stream.request, "true"));
        let first = stream.next().now_or_never().flatten().unwrap();
        assert_eq!(first.unwrap(), "true");
    }
}
