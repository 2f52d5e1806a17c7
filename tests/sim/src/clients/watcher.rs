//! Clients that watch: one long stream over many connections, and short visits that begin at any revision.

use std::sync::Arc;
use std::time::Duration;

use flotilla_history::{Action, Event, Kind, Outcome, Revision, Step, Stream};
use flotilla_raft::{Call, CallError, Watch, WatchError};
use flotilla_store::Change;
use futures::FutureExt as _;
use tokio::sync::Mutex;

use super::{Clients, PATIENCE};
use crate::network::CLIENTS;
use crate::objects;

/// How long a replica waits for news before it tells how far it has seen everything.
const NEWS_WITHIN: Duration = Duration::from_millis(150);
/// Watchers have numbers of their own in the history.
const WATCHER: u32 = 100;
/// How far back a visit may begin.
const VISIT_BEHIND: u64 = 40;

/// A watch at one process of a replica.
#[derive(Clone)]
struct Session {
    address: String,
    incarnation: u64,
    watch: Arc<Mutex<Watch>>,
}

/// What a watch told.
enum News {
    Events(Vec<Event>, Revision),
    Expired,
}

impl Clients {
    /// Follows everything, resumes whenever a connection ends, and lists again when it has to.
    pub(super) async fn watch(self, number: u32) {
        let mut stream = Stream {
            watcher: number.to_string(),
            prefix: self.any_prefix(),
            steps: Vec::new(),
            through: None,
        };
        let mut position = Some(Revision(0));
        loop {
            let through = self.shared().through;
            if through.is_some() && position >= through {
                stream.through = through;
                break;
            }
            position = match position {
                None => self.list(&mut stream, WATCHER + number).await,
                Some(after) => {
                    let rounds = self.chance.number(1..40);
                    self.follow(&mut stream, after, rounds).await
                }
            };
            self.pause(50).await;
        }
        self.record(stream);
    }

    /// Looks in at random, from any revision that may still be kept.
    pub(super) async fn visit(self) {
        let mut count = 0;
        while !self.stopping.is_cancelled() {
            self.pause(100).await;
            count += 1;
            let newest = self.shared().newest.0;
            let after = newest.saturating_sub(self.chance.number(0..VISIT_BEHIND));
            let mut stream = Stream {
                watcher: format!("visitor {count}"),
                prefix: self.any_prefix(),
                steps: Vec::new(),
                through: None,
            };
            self.follow(&mut stream, Revision(after), 1).await;
            self.record(stream);
        }
    }

    async fn list(&self, stream: &mut Stream, client: u32) -> Option<Revision> {
        let action = Action::List {
            prefix: stream.prefix.clone(),
        };
        let Outcome::Listed(listing) = self.ask(client, self.anyone(), action).await else {
            return None;
        };
        let revision = listing.revision;
        stream.steps.push(Step::Listed(listing));
        Some(revision)
    }

    /// Follows over one connection for some rounds; answers where to go on, none to list again.
    async fn follow(&self, stream: &mut Stream, after: Revision, rounds: u64) -> Option<Revision> {
        let mut position = after;
        let session = match self.open(&stream.prefix, after).await {
            Ok(Some(session)) => session,
            Ok(None) => return None,
            Err(_) => return Some(position),
        };
        stream.steps.push(Step::Follows(after));
        for _ in 0..rounds {
            match self.next(&session).await {
                Ok(News::Events(events, revision)) => {
                    self.trace.note(format_args!(
                        "watcher {}: {} events to {revision} from {}",
                        stream.watcher,
                        events.len(),
                        session.address
                    ));
                    stream.steps.extend(events.into_iter().map(Step::Event));
                    stream.steps.push(Step::Bookmark(revision));
                    position = revision;
                }
                Ok(News::Expired) => return None,
                Err(_) => break,
            }
            if self.chance.one_in(10) {
                self.pause(600).await;
            }
        }
        Some(position)
    }

    async fn open(&self, prefix: &str, after: Revision) -> Result<Option<Session>, CallError> {
        let address = self.anyone();
        let namespace = objects::namespace(prefix);
        let asked = address.clone();
        let call = self.network.call(CLIENTS, &address, "client", move |target| {
            let after = flotilla_store::Revision(after.0);
            let watch = target
                .replica
                .watch(objects::resource(), namespace.clone(), after);
            let session = |watch| Session {
                address: asked.clone(),
                incarnation: target.incarnation,
                watch: Arc::new(Mutex::new(watch)),
            };
            let opened = match watch {
                Ok(watch) => Ok(Some(session(watch))),
                Err(WatchError::Expired { .. }) => Ok(None),
                Err(error) => Err(CallError::Refused(error.to_string())),
            };
            std::future::ready(opened).boxed()
        });
        within(call).await
    }

    async fn next(&self, session: &Session) -> Result<News, CallError> {
        let (watch, incarnation) = (Arc::clone(&session.watch), session.incarnation);
        let call = self
            .network
            .call(CLIENTS, &session.address, "client", move |target| {
                let watch = Arc::clone(&watch);
                async move {
                    if target.incarnation != incarnation {
                        return Err(CallError::Refused("the process is another".to_owned()));
                    }
                    news(&mut *watch.lock().await).await
                }
                .boxed()
            });
        within(call).await
    }
}

async fn within<T>(call: Call<T>) -> Result<T, CallError> {
    let answer = tokio::time::timeout(PATIENCE, call).await;
    answer.unwrap_or_else(|_| Err(CallError::Unknown("no answer".to_owned())))
}

async fn news(watch: &mut Watch) -> Result<News, CallError> {
    match tokio::time::timeout(NEWS_WITHIN, watch.next()).await {
        Ok(Ok(batch)) => {
            let events = batch.events.iter().map(|event| shown(event));
            Ok(News::Events(events.collect(), Revision(batch.revision.0)))
        }
        Ok(Err(WatchError::Expired { .. })) => Ok(News::Expired),
        Ok(Err(error)) => Err(CallError::Refused(error.to_string())),
        Err(_) => Ok(News::Events(Vec::new(), Revision(watch.progress().0))),
    }
}

fn shown(event: &flotilla_store::Event) -> Event {
    Event {
        kind: match event.change {
            Change::Added => Kind::Added,
            Change::Modified => Kind::Modified,
            Change::Deleted => Kind::Deleted,
        },
        key: objects::name(&event.object.key),
        value: objects::tag(&event.object.json),
        revision: Revision(event.revision.0),
    }
}
