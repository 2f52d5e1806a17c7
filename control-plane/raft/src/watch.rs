//! Following the changes of one resource.
//!
//! A watch holds a revision and asks the shared history for what came after it. There is no queue per
//! watcher: a slow one falls out of the bounded history and is told so.

use std::sync::Arc;

use flotilla_store::{Event, HistoryPage, ResourceName, Revision};
use tokio::sync::watch::Receiver;

use crate::shared::Shared;

/// Events that one call hands out at most; the next call goes on from there.
const BATCH_EVENTS_MAX: usize = 256;

/// Why a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The wanted events are no longer kept; the caller has to list again.
    #[error("changes before revision {oldest} are no longer kept")]
    Expired {
        /// Watching can start at this revision or later.
        oldest: Revision,
    },
    /// The replica is shutting down.
    #[error("the replica is shutting down")]
    Closed,
}

/// Events in order, and how far they reach.
#[derive(Clone, Debug)]
pub struct Batch {
    /// At least one event.
    pub events: Vec<Arc<Event>>,
    /// Everything up to here has been delivered; a later watch may start from it.
    pub revision: Revision,
}

/// Follows the changes of one resource, in revision order, without gap or duplicate.
pub struct Watch {
    shared: Arc<Shared>,
    resource: ResourceName,
    namespace: Option<String>,
    after: Revision,
    news: Receiver<()>,
}

impl Watch {
    pub(crate) fn start(
        shared: Arc<Shared>,
        resource: ResourceName,
        namespace: Option<String>,
        after: Revision,
    ) -> Result<Watch, WatchError> {
        // Whoever starts anew when a watch ends would otherwise do so in a loop that never waits.
        if shared.closed.is_cancelled() {
            return Err(WatchError::Closed);
        }
        let news = shared.subscribe(&resource);
        let watch = Watch {
            shared,
            resource,
            namespace,
            after,
            news,
        };
        watch.page()?;
        Ok(watch)
    }

    /// Waits for news. Cancel safe: what was not returned is returned by the next call.
    pub async fn next(&mut self) -> Result<Batch, WatchError> {
        let closed = self.shared.closed.clone();
        loop {
            self.news.borrow_and_update();
            let page = self.page()?;
            self.after = page.revision;
            if !page.events.is_empty() {
                return Ok(Batch {
                    events: page.events,
                    revision: page.revision,
                });
            }
            if page.more {
                continue;
            }
            tokio::select! {
                biased;
                // Dropping either loses nothing: the state is looked at again on the next round.
                () = closed.cancelled() => return Err(WatchError::Closed),
                changed = self.news.changed() => changed.map_err(|_| WatchError::Closed)?,
            }
        }
    }

    /// How far this watch has seen everything, for bookmarks. Never waits. Moves on only when no event is due.
    pub fn progress(&mut self) -> Revision {
        if let Ok(page) = self.page()
            && page.events.is_empty()
        {
            self.after = page.revision;
        }
        self.after
    }

    fn page(&self) -> Result<HistoryPage, WatchError> {
        self.shared
            .events(
                &self.resource,
                self.namespace.as_deref(),
                self.after,
                BATCH_EVENTS_MAX,
            )
            .map_err(|too_old| WatchError::Expired {
                oldest: too_old.oldest,
            })
    }
}
