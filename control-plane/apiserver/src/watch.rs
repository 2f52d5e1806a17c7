//! Watches: a stream of changes, in order and without gaps, for as long as the client stays.
//!
//! Nothing is buffered ahead of the client: each piece is made when the connection takes it, from the replica's
//! bounded history. A client that is too slow for that history gets an `ERROR` event and lists again.

mod frames;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_api::{Kind, Path, Status};
use flotilla_raft::{Watch, WatchError};
use flotilla_store::{Event, Revision, Stored};
use http::{Response, StatusCode};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::body::{Body, CHUNK_BYTES};
use crate::call::Call;
use crate::list::{self, Wanted, resource_of, snapshot_at};
use crate::query::refused;
use crate::render::{Renderer, json_response};
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::status::{self, Failure};

/// As often as Kubernetes sends them.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// Watches without a time limit of their own end after this, so that clients spread over servers again.
const TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// Answers a watch.
pub(crate) async fn respond(
    server: &ApiServer,
    call: &Call,
    kind: &'static Kind,
    namespace: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let renderer = Renderer::of(kind, call)?;
    let selection = Selection::parse(kind, &call.query)?;
    let start = start(server, call, kind, namespace, &selection).await?;
    let timeout = match call.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()).min(TIMEOUT),
        _ => TIMEOUT,
    };
    let resource = resource_of(kind);
    let namespace = namespace.map(str::to_owned);
    let watch = match server
        .resources()
        .replica()
        .watch(resource, namespace, start.after)
    {
        Ok(watch) => watch,
        Err(error) => return Ok(ended(&error)),
    };
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let stream = WatchStream {
        renderer,
        selection,
        initial: start.initial.into(),
        initial_end: start.marks_end.then_some(start.after),
        pending: VecDeque::new(),
        progress: start.after,
        watch,
        bookmarks: bookmarks.then(bookmark_timer),
        deadline: Instant::now() + timeout,
        drain: server.drain().clone(),
        ended: false,
    };
    Ok(streaming(Body::stream(futures::stream::unfold(
        stream,
        |mut stream| async move { stream.next().await.map(|chunk| (chunk, stream)) },
    ))))
}

fn streaming(body: Body) -> Response<Body> {
    let mut response = json_response(StatusCode::OK, Bytes::new());
    *response.body_mut() = body;
    response
}

fn bookmark_timer() -> Interval {
    let mut timer = tokio::time::interval_at(Instant::now() + BOOKMARK_PERIOD, BOOKMARK_PERIOD);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// A watch that is over before it began: a stream of one `ERROR` event, as clients expect it.
fn ended(error: &WatchError) -> Response<Body> {
    streaming(Body::whole(frames::error(&status::object(&failure(error)))))
}

fn failure(error: &WatchError) -> Status {
    match error {
        WatchError::Expired { oldest } => Status::expired(format!(
            "too old resource version: the oldest that is kept is {oldest}"
        )),
        WatchError::Closed => Status::unavailable("the server is shutting down"),
    }
}

/// Where a watch begins.
struct Start {
    /// Objects that are sent as added before anything else.
    initial: Vec<Arc<Stored>>,
    /// Changes after this moment are sent.
    after: Revision,
    /// Whether a bookmark marks the end of the initial objects.
    marks_end: bool,
}

async fn start(
    server: &ApiServer,
    call: &Call,
    kind: &'static Kind,
    namespace: Option<&str>,
    selection: &Selection,
) -> Result<Start, Status> {
    let (wanted, with_initial, marks_end) = beginning(call)?;
    if let (Wanted::NotOlderThan(revision), false) = (wanted, with_initial) {
        // A moment that this cluster has not reached is an error now rather than silence for ever.
        snapshot_at(server.resources().replica(), server.recent(), wanted).await?;
        return Ok(Start {
            initial: Vec::new(),
            after: revision,
            marks_end: false,
        });
    }
    let snapshot = snapshot_at(server.resources().replica(), server.recent(), wanted).await?;
    let initial = match with_initial {
        true => list::page(&snapshot, &resource_of(kind), namespace, selection, None, None).objects,
        false => Vec::new(),
    };
    Ok(Start {
        initial,
        after: snapshot.revision(),
        marks_end,
    })
}

/// The moment to start from, whether its objects are sent, and whether their end is marked.
fn beginning(call: &Call) -> Result<(Wanted, bool, bool), Status> {
    let query = &call.query;
    match query.optional_flag("sendInitialEvents") {
        None => {
            // Kubernetes: no version and "0" both begin with what is there.
            let version = query.get("resourceVersion").map(str::to_owned);
            match version.as_deref() {
                None => Ok((Wanted::Latest, true, false)),
                Some("0") => Ok((Wanted::Any, true, false)),
                Some(_) => Ok((list::wanted(query, false)?, false, false)),
            }
        }
        Some(_) if query.get("resourceVersionMatch") != Some("NotOlderThan") => {
            Err(refused("ListOptions", |errors| {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.forbidden(Path::root("resourceVersionMatch"), why);
            }))
        }
        Some(send) => {
            let wanted = match query.get("resourceVersion") {
                None => Wanted::Latest,
                Some(_) => list::wanted(query, false)?,
            };
            Ok((wanted, send, send && query.flag("allowWatchBookmarks")))
        }
    }
}

struct WatchStream {
    renderer: Renderer,
    selection: Selection,
    initial: VecDeque<Arc<Stored>>,
    /// The moment of the initial objects, while the bookmark that ends them is still to be sent.
    initial_end: Option<Revision>,
    pending: VecDeque<Arc<Event>>,
    progress: Revision,
    watch: Watch,
    bookmarks: Option<Interval>,
    deadline: Instant,
    drain: CancellationToken,
    ended: bool,
}

impl WatchStream {
    /// The next piece of the body; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready() {
                return Some(chunk);
            }
            if self.ended {
                return None;
            }
            if let Some(chunk) = self.wait().await {
                return Some(chunk);
            }
        }
    }

    /// What can be sent without waiting, up to the size of a chunk.
    fn ready(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES
            && let Some(stored) = self.initial.pop_front()
        {
            frames::added(&mut chunk, &self.renderer, &stored);
        }
        if self.initial.is_empty()
            && let Some(revision) = self.initial_end.take()
        {
            frames::bookmark(&mut chunk, &self.renderer.bookmark(revision, true));
        }
        while chunk.len() < CHUNK_BYTES
            && let Some(event) = self.pending.pop_front()
        {
            frames::event(&mut chunk, &self.renderer, &self.selection, &event);
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }

    /// Waits for news; returns a piece when it is not made of events.
    async fn wait(&mut self) -> Option<Bytes> {
        let tick = async {
            match &mut self.bookmarks {
                Some(timer) => timer.tick().await,
                None => std::future::pending().await,
            }
        };
        // The futures that lose are dropped: a token, a deadline and a timer keep their own state, and
        // `Watch::next` is cancel safe.
        tokio::select! {
            () = self.drain.cancelled() => self.ended = true,
            () = tokio::time::sleep_until(self.deadline) => self.ended = true,
            _ = tick => return Some(self.bookmark()),
            batch = self.watch.next() => match batch {
                Ok(batch) => {
                    self.progress = batch.revision;
                    self.pending.extend(batch.events);
                    return None;
                }
                Err(WatchError::Closed) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(frames::error(&status::object(&failure(&error))));
                }
            },
        }
        // A last bookmark lets the client go on elsewhere from where it is.
        self.bookmarks.is_some().then(|| self.bookmark())
    }

    fn bookmark(&mut self) -> Bytes {
        self.progress = self.progress.max(self.watch.progress());
        let mut chunk = Vec::new();
        frames::bookmark(&mut chunk, &self.renderer.bookmark(self.progress, false));
        chunk.into()
    }
}
