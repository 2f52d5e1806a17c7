//! One watcher: follows all keys, on one server after the other, for as long as the workload lasts.

use std::sync::Arc;
use std::time::Duration;

use flotilla_history::{Listing, Revision, Step, Stream};
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::api::{self, Line, PREFIX};
use crate::caller::Caller;
use crate::shared::{OPERATION_LIMIT, Shared};

/// A stream that is silent for so long may be one of a server that stands still: the watcher goes to the next.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Between two tries, so that a cluster without a majority is not asked in a loop.
const PAUSE: Duration = Duration::from_millis(100);

/// Follows all keys.
pub(crate) struct Watcher {
    name: String,
    shared: Arc<Shared>,
    callers: Vec<Caller>,
    /// On which server it is.
    at: usize,
    steps: Vec<Step>,
    /// Everything up to here was told; none before the first list.
    position: Option<Revision>,
    /// Tells the workload how far it is.
    progress: watch::Sender<Revision>,
}

/// Why a stream ended.
enum End {
    /// Go on from the position, elsewhere.
    Broken,
    /// List again.
    Expired,
}

impl Watcher {
    pub(crate) fn new(number: usize, shared: &Arc<Shared>, progress: watch::Sender<Revision>) -> Self {
        Self {
            name: format!("w{number}"),
            callers: shared.callers(),
            at: number % shared.servers.len(),
            shared: Arc::clone(shared),
            steps: Vec::new(),
            position: None,
            progress,
        }
    }

    /// Follows until it has seen what it should; what it saw.
    pub(crate) async fn run(mut self) -> Stream {
        let done = self.shared.done.clone();
        // Cut off between two chunks: what was told before is written down.
        let _ = done.run_until_cancelled(self.follow()).await;
        Stream {
            watcher: self.name,
            prefix: PREFIX.to_owned(),
            steps: self.steps,
            through: None,
        }
    }

    async fn follow(&mut self) {
        loop {
            let end = match self.position {
                None => self.list().await,
                Some(position) => self.watch(position).await,
            };
            match end {
                End::Broken => {
                    self.at = (self.at + 1) % self.callers.len();
                    tokio::time::sleep(PAUSE).await;
                }
                End::Expired => self.position = None,
            }
        }
    }

    /// Lists, and goes on with a watch from there.
    async fn list(&mut self) -> End {
        let path = api::collection(&self.shared.plan.namespace);
        let caller = &mut self.callers[self.at];
        let answer = caller
            .ask(Method::GET, &path, String::new(), OPERATION_LIMIT)
            .await;
        let listing = answer.ok().and_then(|answer| {
            let body = serde_json::from_slice(&answer.body).ok()?;
            answer.code.is_success().then(|| api::listing(&body))?
        });
        let Some(listing) = listing else {
            return End::Broken;
        };
        let revision = listing.revision;
        self.note(Step::Listed(listing));
        self.watch(revision).await
    }

    async fn watch(&mut self, position: Revision) -> End {
        let collection = api::collection(&self.shared.plan.namespace);
        let path = format!("{collection}?watch=1&allowWatchBookmarks=true&resourceVersion={position}");
        let Some(response) = self.callers[self.at].stream(&path, OPERATION_LIMIT).await else {
            return End::Broken;
        };
        if response.status() == http::StatusCode::GONE {
            return End::Expired;
        }
        if !response.status().is_success() {
            return End::Broken;
        }
        self.note(Step::Follows(position));
        self.read(response.into_body()).await
    }

    async fn read(&mut self, mut body: Incoming) -> End {
        let mut buffer = Vec::new();
        loop {
            let Ok(Some(Ok(frame))) = timeout(SILENCE_MAX, body.frame()).await else {
                return End::Broken;
            };
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                match api::line(&line) {
                    Line::Event(event) => self.note(Step::Event(event)),
                    Line::Bookmark(revision) => self.note(Step::Bookmark(revision)),
                    Line::Foreign => {}
                    Line::Expired => return End::Expired,
                    Line::Broken => return End::Broken,
                }
            }
        }
    }

    fn note(&mut self, step: Step) {
        let revision = match &step {
            Step::Listed(Listing { revision, .. }) | Step::Follows(revision) | Step::Bookmark(revision) => {
                *revision
            }
            Step::Event(event) => event.revision,
        };
        self.position = Some(revision);
        self.progress.send_replace(revision);
        self.steps.push(step);
    }
}
