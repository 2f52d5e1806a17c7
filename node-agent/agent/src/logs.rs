//! Answers a server's requests for containers' logs.
//!
//! A log is sent as far as the reader grants it, so a slow reader holds back only its own log.

use std::collections::HashMap;
use std::sync::Arc;

use flotilla_lifecycle::ContainerHistory;
use flotilla_proto::node::{AgentMessage, LogChunk, LogRequest, agent_message::Kind};
use flotilla_report::report;
use flotilla_runtime::logs::{LogReader, ReadLogError, ReadOptions, path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, PodStatus};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::pods::{PodView, Pods};
use crate::worker::Surroundings;

/// Chunks that may be sent unasked, as the protocol has it.
const FREE_CHUNKS: usize = 32;
/// Far below gRPC's limit of 4 MiB for a message.
const CHUNK_BYTES_MAX: usize = 32 << 10;

/// Why there is no (more) log. The messages are kubelet's.
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("pod \"{0}\" is not on this node")]
    NoPod(String),
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    NotStarted {
        container: String,
        pod: String,
        reason: String,
    },
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious { container: String, pod: String },
    #[error(transparent)]
    Read(#[from] ReadLogError),
}

/// The log requests of one session. Dropping it ends them all.
pub(crate) struct LogStreams {
    streams: HashMap<u64, Stream>,
    tracker: TaskTracker,
}

struct Stream {
    grants: Arc<Semaphore>,
    _cancel: DropGuard,
}

impl LogStreams {
    pub(crate) fn new(tracker: TaskTracker) -> Self {
        Self {
            streams: HashMap::new(),
            tracker,
        }
    }

    /// Begins to send a log.
    pub(crate) fn open(
        &mut self,
        request: LogRequest,
        pods: &Pods,
        surroundings: Arc<Surroundings>,
        out: mpsc::Sender<AgentMessage>,
    ) {
        self.streams.retain(|_, stream| !stream.grants.is_closed());
        let cancel = CancellationToken::new();
        let grants = Arc::new(Semaphore::new(FREE_CHUNKS));
        let stream = Stream {
            grants: grants.clone(),
            _cancel: cancel.clone().drop_guard(),
        };
        self.streams.insert(request.request, stream);
        let view = pods.view(&request.pod_uid);
        let sender = Sender {
            request: request.request,
            out,
            grants,
        };
        self.tracker.spawn(async move {
            // Dropping the copy half-way is what a cancelled request asks for.
            tokio::select! {
                () = cancel.cancelled() => sender.grants.close(),
                () = send(request, view, &surroundings, &sender) => sender.grants.close(),
            }
        });
    }

    pub(crate) fn grant(&self, request: u64, chunks: u32) {
        if let Some(stream) = self.streams.get(&request) {
            stream
                .grants
                .add_permits(usize::try_from(chunks).unwrap_or_default().min(FREE_CHUNKS));
        }
    }

    pub(crate) fn cancel(&mut self, request: u64) {
        self.streams.remove(&request);
    }
}

struct Sender {
    request: u64,
    out: mpsc::Sender<AgentMessage>,
    grants: Arc<Semaphore>,
}

impl Sender {
    /// False: nobody listens any more.
    async fn data(&self, data: bytes::Bytes) -> bool {
        let Ok(grant) = self.grants.acquire().await else {
            return false;
        };
        grant.forget();
        self.say(LogChunk {
            request: self.request,
            data,
            end: false,
            error: String::new(),
        })
        .await
    }

    async fn end(&self, error: String) {
        self.say(LogChunk {
            request: self.request,
            data: bytes::Bytes::new(),
            end: true,
            error,
        })
        .await;
    }

    async fn say(&self, chunk: LogChunk) -> bool {
        self.out
            .send(AgentMessage {
                kind: Some(Kind::Log(chunk)),
            })
            .await
            .is_ok()
    }
}

async fn send(
    request: LogRequest,
    view: Option<watch::Receiver<PodView>>,
    surroundings: &Surroundings,
    sender: &Sender,
) {
    let error = match copy(&request, view, surroundings, sender).await {
        Ok(()) => String::new(),
        Err(error) => report(&error),
    };
    sender.end(error).await;
}

async fn copy(
    request: &LogRequest,
    view: Option<watch::Receiver<PodView>>,
    surroundings: &Surroundings,
    sender: &Sender,
) -> Result<(), LogError> {
    let mut view = view.ok_or_else(|| LogError::NoPod(request.pod_name.clone()))?;
    let (log_dir, past, attempt) = {
        let now = view.borrow_and_update();
        let past = now.history.container(&request.container);
        (
            surroundings.log_dir(&now.pod),
            past.clone(),
            attempt(request, &past, &now.status)?,
        )
    };
    let finished = CancellationToken::new();
    if is_over(&past, attempt) {
        finished.cancel();
    }
    let log = path(&log_dir, &request.container, attempt);
    let mut reader = LogReader::open(log, options(request), finished.clone()).await?;
    loop {
        // Reading is cancel safe, and the other arm only waits.
        tokio::select! {
            part = reader.next() => {
                let Some(mut part) = part? else { return Ok(()) };
                while !part.is_empty() {
                    if !sender.data(part.split_to(part.len().min(CHUNK_BYTES_MAX))).await {
                        return Ok(());
                    }
                }
            }
            changed = view.changed(), if !finished.is_cancelled() => {
                let is_gone = changed.is_err();
                if is_gone || is_over(&view.borrow_and_update().history.container(&request.container), attempt) {
                    finished.cancel();
                }
            }
        }
    }
}

/// Which attempt's log is wanted.
fn attempt(request: &LogRequest, past: &ContainerHistory, status: &PodStatus) -> Result<u32, LogError> {
    let (container, pod) = (request.container.clone(), request.pod_name.clone());
    let newest = past.attempts.checked_sub(1);
    if request.previous {
        // While the container waits to be started again, the newest run is the one before.
        let previous = match waiting(status, &container) {
            Some(_) => newest,
            None => newest.and_then(|newest| newest.checked_sub(1)),
        };
        return previous.ok_or(LogError::NoPrevious { container, pod });
    }
    newest.ok_or_else(|| {
        let reason = waiting_reason(status, &container);
        LogError::NotStarted {
            container,
            pod,
            reason,
        }
    })
}

/// What the container's status says while it waits.
fn waiting<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStateWaiting> {
    let mut all = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    let found = all.find(|status| status.name == container)?;
    found.state.as_ref()?.waiting.as_ref()
}

fn waiting_reason(status: &PodStatus, container: &str) -> String {
    let reason = waiting(status, container).and_then(|waiting| waiting.reason.as_deref());
    match reason.unwrap_or("ContainerCreating") {
        "ErrImagePull" => "image can't be pulled".to_owned(),
        "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        reason => reason.to_owned(),
    }
}

fn is_over(past: &ContainerHistory, attempt: u32) -> bool {
    past.attempts != attempt + 1 || !past.is_running()
}

fn options(request: &LogRequest) -> ReadOptions {
    let unsigned = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    ReadOptions {
        follow: request.follow,
        tail_lines: unsigned(request.tail_lines),
        since: request
            .since_unix_nanos
            .and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok()),
        limit_bytes: unsigned(request.limit_bytes),
        timestamps: request.timestamps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attempt whose log is found, or why there is none.
    #[track_caller]
    fn check(attempts: u32, state: &str, previous: bool, expected: &str) {
        let state: serde_json::Value = serde_json::from_str(state).unwrap();
        let status = serde_json::json!({"containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state},
        ]});
        let status: PodStatus = serde_json::from_value(status).unwrap();
        let past = ContainerHistory {
            attempts,
            ..ContainerHistory::default()
        };
        let request = LogRequest {
            container: "a".to_owned(),
            pod_name: "web".to_owned(),
            previous,
            ..LogRequest::default()
        };
        let found = match attempt(&request, &past, &status) {
            Ok(attempt) => attempt.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    const BACK_OFF: &str = r#"{"waiting": {"reason": "CrashLoopBackOff"}}"#;
    const RUNNING: &str = r#"{"running": {}}"#;

    #[test]
    fn a_container_that_waits_for_its_next_run_shows_the_last_one_as_previous() {
        check(3, BACK_OFF, true, "2");
        check(3, BACK_OFF, false, "2");
        check(3, RUNNING, true, "1");
        check(3, RUNNING, false, "2");
        check(
            1,
            RUNNING,
            true,
            r#"previous terminated container "a" in pod "web" not found"#,
        );
    }

    #[test]
    fn a_log_that_has_not_begun_says_why() {
        let pull = r#"{"waiting": {"reason": "ImagePullBackOff"}}"#;
        check(
            0,
            pull,
            false,
            r#"container "a" in pod "web" is waiting to start: trying and failing to pull image"#,
        );
        check(
            0,
            "{}",
            false,
            r#"container "a" in pod "web" is waiting to start: ContainerCreating"#,
        );
    }
}
