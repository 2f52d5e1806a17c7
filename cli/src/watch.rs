//! Watches: a stream of JSON events, one per line.

use anyhow::{Context as _, bail};
use futures::{AsyncBufReadExt as _, Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Cluster, with_query};

/// One event.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
    #[serde(rename = "type")]
    pub(crate) change: String,
    pub(crate) object: Value,
}

/// Which objects are watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) labels: Option<&'a str>,
    pub(crate) fields: Option<&'a str>,
    /// Tables rather than objects.
    pub(crate) table: bool,
}

/// Watches a collection from a revision on.
///
/// Ends when the server ends it; a server's error ends it as an error.
pub(crate) async fn watch(
    cluster: &Cluster,
    collection: &str,
    filter: &Filter<'_>,
    after: &str,
) -> anyhow::Result<impl Stream<Item = anyhow::Result<Event>> + Unpin + use<>> {
    let path = with_query(
        collection,
        &[
            ("watch", Some("true")),
            ("resourceVersion", Some(after)),
            ("labelSelector", filter.labels),
            ("fieldSelector", filter.fields),
        ],
    );
    let lines = cluster.stream(&path, filter.table).await?.lines();
    Ok(lines.map(|line| {
        let event: Event = serde_json::from_str(&line.context("the watch broke off")?)
            .context("an event of the watch is not JSON")?;
        if event.change == "ERROR" {
            bail!(
                "the watch failed: {}",
                event.object["message"].as_str().unwrap_or_default()
            );
        }
        Ok(event)
    }))
}

/// The field selector for one object.
pub(crate) fn by_name(name: &str) -> String {
    format!("metadata.name={name}")
}
