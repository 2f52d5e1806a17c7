//! Deletes events that nobody will ask for any more.

use std::sync::Arc;
use std::time::Duration;

use flotilla_api::registry;
use flotilla_report::report;
use flotilla_resources::Resources;
use flotilla_store::{Operation, Require, ResourceName, Stored, Transaction};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde::Deserialize;
use tokio::time::MissedTickBehavior;

use crate::context::{self, Context};
use crate::pods::elapsed;
use crate::runner::Runner;

/// Events live for an hour, so a minute more or less does not matter.
const PERIOD: Duration = Duration::from_secs(60);
/// Deletions that one proposal carries at most, so that it does not hold up what is urgent.
const BATCH_MAX: usize = 500;

/// Starts the task. It is no controller: there is no object that it brings to anything.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let (ctx, shutdown) = (Arc::clone(ctx), runner.shutdown.clone());
    runner.tracker.spawn(async move {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A pass that is dropped is made again by the next leader.
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => delete_expired(&ctx.resources, ctx.term, ctx.options.event_ttl).await,
            }
        }
    });
}

/// Deletes all events older than `ttl`.
pub(crate) async fn delete_expired(resources: &Resources, term: u64, ttl: Duration) {
    let (group, resource) = registry().of::<Event>().resource_name();
    let name = ResourceName::new(group, resource);
    let snapshot = resources.replica().snapshot();
    let now = context::now();
    let expired = snapshot
        .list(&name, None, None)
        .filter(|event| age(event, now).is_some_and(|age| age > ttl));
    let deletions: Vec<Operation> = expired
        .map(|event| Operation::Delete {
            key: event.key.clone(),
            require: Require::Anything,
        })
        .collect();
    for batch in deletions.chunks(BATCH_MAX) {
        let transaction = Transaction {
            operations: batch.to_vec(),
            fence: Some(term),
        };
        if let Err(error) = resources.replica().propose(transaction).await {
            tracing::warn!(
                error = report(&error),
                "expired events could not be deleted and stay for another while"
            );
            return;
        }
    }
}

/// How long ago the event last happened.
fn age(stored: &Stored, now: Timestamp) -> Option<Duration> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Partial {
        metadata: Meta,
        last_timestamp: Option<Timestamp>,
        event_time: Option<Timestamp>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        creation_timestamp: Option<Timestamp>,
    }
    let event: Partial = serde_json::from_slice(&stored.json).ok()?;
    let last = event
        .last_timestamp
        .max(event.event_time)
        .or(event.metadata.creation_timestamp)?;
    Some(elapsed(last, now))
}
