//! Follows objects of the cluster (services, their endpoints, policies …) on some live server and hands them on.
//!
//! Whoever needs objects registers a handler with [`Follow::on`], or takes a [`Mirror`] of all of them, before the
//! follower starts. Each resource is followed once, however many handlers it has, and is kept on disk: a restarted
//! agent knows what the last one knew before any server has answered, and losing all servers takes nothing away.
//!
//! *Guarantees*: handlers see every object and every removal, in the order of revisions; changes in between may be seen
//! as one. [`Change::Synced`] is told whenever what was told before it is all that there is. An object that did not
//! change is not told again.

mod cache;
mod mirror;
mod servers;
mod topic;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::node::nodes_client::NodesClient;
use flotilla_proto::node::{FollowEvent, FollowRequest};
use flotilla_report::report;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use mirror::Mirror;
pub(crate) use servers::Servers;
use topic::{AnyTopic, Topic};

/// Servers send a bookmark every 2 s: one that is silent for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// A server that does not answer within this time is passed over.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// The first pause after a server was lost; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A stream that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// A kind that can be followed.
pub(crate) trait Followed:
    Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static
{
}

impl<T> Followed for T where T: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static
{}

/// What a handler is told.
#[derive(Debug, Clone)]
pub(crate) enum Change<T> {
    /// The object is new or has changed.
    Applied(Arc<T>),
    /// The object is gone.
    Gone {
        /// Empty outside of namespaces.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// What was told so far is all that there is.
    Synced,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("the server does not answer")]
    Silent,
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("the server ended the stream")]
    Closed,
}

impl From<tonic::Status> for FollowError {
    fn from(status: tonic::Status) -> Self {
        FollowError::Status(Box::new(status))
    }
}

/// All resources that this agent follows.
pub(crate) struct Follow {
    folder: PathBuf,
    topics: Vec<Box<dyn AnyTopic>>,
}

impl Follow {
    /// Follows nothing yet; `folder` holds what was followed last time.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            topics: Vec::new(),
        }
    }

    /// Calls `handler` for every object and every change. It must not block: it runs on the follower's task.
    pub(crate) fn on<T: Followed>(&mut self, handler: impl FnMut(&Change<T>) + Send + Sync + 'static) {
        let topic = self.topic::<T>(None);
        topic.wait_for(None);
        topic.add(handler);
    }

    /// As [`Follow::on`], but nothing is followed, nor kept, before the gate opens; others who want it all the time get
    /// their way. What opens the gate must be followed before.
    pub(crate) fn on_when<T: Followed>(
        &mut self,
        gate: watch::Receiver<bool>,
        handler: impl FnMut(&Change<T>) + Send + Sync + 'static,
    ) {
        self.topic::<T>(Some(gate)).add(handler);
    }

    /// The topic of the kind; a new one has this gate.
    fn topic<T: Followed>(&mut self, gate: Option<watch::Receiver<bool>>) -> &mut Topic<T> {
        let is_it = |topic: &mut Box<dyn AnyTopic>| topic.as_any().is::<Topic<T>>();
        let found = self.topics.iter_mut().position(is_it);
        let at = found.unwrap_or_else(|| {
            let mut topic = Topic::<T>::new(&self.folder);
            topic.wait_for(gate);
            self.topics.push(Box::new(topic));
            self.topics.len() - 1
        });
        let topic = self.topics[at].as_any().downcast_mut();
        topic.expect("a topic of this kind is at this place")
    }

    /// What `keep` takes of each object, in memory. Objects of which it takes nothing are left out.
    pub(crate) fn mirror<T: Followed, S: Send + Sync + 'static>(
        &mut self,
        keep: impl Fn(&Arc<T>) -> Option<S> + Send + Sync + 'static,
    ) -> Mirror<S> {
        let mirror = Mirror::default();
        let fed = mirror.clone();
        self.on(move |change| fed.take(change, &keep));
        mirror
    }

    /// Tells the handlers what an earlier agent knew.
    pub(crate) fn restore(&mut self) {
        if let Err(error) = std::fs::create_dir_all(&self.folder) {
            tracing::warn!(path = %self.folder.display(), error = report(&error), "followed objects are not kept");
        }
        for topic in &mut self.topics {
            topic.restore();
        }
    }

    /// Follows everything, each resource by a task of its own, until shutdown.
    pub(crate) fn start(
        &mut self,
        servers: &Arc<Servers>,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) {
        for mut topic in std::mem::take(&mut self.topics) {
            let (servers, shutdown) = (servers.clone(), shutdown.clone());
            tracker.spawn(async move {
                // Dropping the stream loses nothing: the next one goes on from the last revision.
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = follow_when_open(&mut *topic, &servers) => {}
                }
            });
        }
    }
}

async fn follow_when_open(topic: &mut dyn AnyTopic, servers: &Servers) {
    if let Some(mut gate) = topic.gate()
        && gate.wait_for(|is_open| *is_open).await.is_err()
    {
        // Whoever could open it is gone.
        return;
    }
    follow_forever(topic, servers).await;
}

async fn follow_forever(topic: &mut dyn AnyTopic, servers: &Servers) {
    let mut pause = FIRST_PAUSE;
    let mut failures = 0;
    loop {
        let Some(address) = servers.choose(failures) else {
            servers.changed().await;
            continue;
        };
        let begin = Instant::now();
        let Err(error) = follow(topic, servers, &address).await;
        topic.interrupted();
        if begin.elapsed() >= GOOD {
            (pause, failures) = (FIRST_PAUSE, 0);
        }
        let resource = topic.resource().1;
        match failures {
            0 => tracing::info!(
                resource,
                server = address,
                error = report(&error),
                "following stopped; trying on"
            ),
            _ => tracing::debug!(
                resource,
                server = address,
                error = report(&error),
                "cannot follow"
            ),
        }
        failures += 1;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn follow(
    topic: &mut dyn AnyTopic,
    servers: &Servers,
    address: &str,
) -> Result<std::convert::Infallible, FollowError> {
    let (group, resource) = topic.resource();
    let request = FollowRequest {
        group: group.to_owned(),
        resource: resource.to_owned(),
        revision: topic.revision(),
    };
    let mut client = NodesClient::new(servers.channel(address));
    let call = client.follow(request);
    let answer = timeout(ANSWER_LIMIT, call)
        .await
        .map_err(|_| FollowError::Silent)??;
    let mut events = answer.into_inner();
    loop {
        let event = timeout(SILENCE_MAX, events.message()).await;
        let event: FollowEvent = event
            .map_err(|_| FollowError::Silent)??
            .ok_or(FollowError::Closed)?;
        if let Some(kind) = event.kind {
            topic.take(kind);
        }
    }
}

#[cfg(test)]
mod tests;
