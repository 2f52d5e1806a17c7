//! `gonepods` and `gonelog`: the logs of pods that are no more.

use flotilla_api::{Reason, Status};
use flotilla_report::report;
use flotilla_runtime::logs::{LogReader, ReadOptions, path};
use flotilla_tunnel::copy::send;
use flotilla_tunnel::request::{GoneLogRequest, GonePod, GonePodsRequest, PIECES};
use flotilla_tunnel::{Ends, Frame};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Streams;

/// The pods of a namespace whose logs are kept, as JSON.
pub(super) fn begin_list(streams: &Streams, wanted: &GonePodsRequest) -> Result<Vec<u8>, Status> {
    let found = streams.surroundings.gone.find(&wanted.namespace);
    let pods: Vec<GonePod> = found
        .into_iter()
        .map(|record| GonePod {
            pod: record.pod,
            uid: record.uid,
            gone_at_unix_millis: record.gone_at.as_millisecond(),
            containers: record.containers.into_iter().map(|kept| kept.name).collect(),
        })
        .collect();
    serde_json::to_vec(&pods).map_err(Status::internal)
}

/// Opens the log of one container.
pub(super) async fn begin_log(streams: &Streams, wanted: GoneLogRequest) -> Result<LogReader, Status> {
    let missing = |what: String| Status::new(Reason::NotFound, what);
    let found = streams.surroundings.gone.get(&wanted.uid);
    let (folder, record) = found.ok_or_else(|| missing("the pod's logs are no longer kept".to_owned()))?;
    let (container, pod) = (&wanted.container, &record.pod);
    let kept = record.containers.iter().find(|kept| kept.name == *container);
    let newest = kept
        .map(|kept| kept.attempt)
        .ok_or_else(|| missing(format!("container \"{container}\" in pod \"{pod}\" never ran")))?;
    let attempt = match wanted.previous {
        false => newest,
        true => newest.checked_sub(1).ok_or_else(|| {
            missing(format!(
                "previous terminated container \"{container}\" in pod \"{pod}\" not found"
            ))
        })?,
    };
    let options = ReadOptions {
        follow: false,
        tail_lines: wanted.tail_lines,
        since: wanted
            .since_unix_nanos
            .and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok()),
        limit_bytes: wanted.limit_bytes,
        timestamps: wanted.timestamps,
    };
    let log = path(&folder, container, attempt);
    let opened = LogReader::open(log, options, CancellationToken::new()).await;
    opened.map_err(|error| missing(report(&error)))
}

/// Sends a list.
pub(super) async fn run_list(json: Vec<u8>, ends: Ends) {
    // Whoever asked may have gone.
    if send(&ends.outgoing, PIECES, json.into()).await.is_ok() {
        let _ = ends.outgoing.send(Frame::close(PIECES)).await;
    }
}

/// Sends a log to its end. One that cannot be read on ends without a close.
pub(super) async fn run_log(mut reader: LogReader, ends: Ends) {
    loop {
        match reader.next().await {
            Ok(Some(text)) => {
                if send(&ends.outgoing, PIECES, text).await.is_err() {
                    return;
                }
            }
            Ok(None) => {
                let _ = ends.outgoing.send(Frame::close(PIECES)).await;
                return;
            }
            Err(error) => return tracing::warn!(error = report(&error), "a kept log cannot be read"),
        }
    }
}
