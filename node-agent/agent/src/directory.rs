//! The servers that this node knows, kept on disk so that it finds the cluster again after a restart.

use std::collections::BTreeSet;
use std::path::PathBuf;

use flotilla_report::report;
use tokio::sync::watch;

use crate::checkpoint::write_private;

/// Addresses (`host:port`) of the servers.
pub(crate) struct Directory {
    path: PathBuf,
    servers: watch::Sender<BTreeSet<String>>,
}

impl Directory {
    /// What is on disk, else what the options say.
    pub(crate) fn open(path: PathBuf, given: &[String]) -> Self {
        let known: BTreeSet<String> = std::fs::read(&path)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default();
        // Those given stay known too: after a move of the whole cluster they may be the only right ones.
        let all = known.into_iter().chain(given.iter().cloned()).collect();
        Self {
            path,
            servers: watch::channel(all).0,
        }
    }

    pub(crate) fn servers(&self) -> watch::Receiver<BTreeSet<String>> {
        self.servers.subscribe()
    }

    /// Takes over what a server says. An empty list is no news.
    pub(crate) fn update(&self, servers: &[String]) {
        let new: BTreeSet<String> = servers
            .iter()
            .filter(|address| !address.is_empty())
            .cloned()
            .collect();
        if new.is_empty() {
            return;
        }
        let is_news = self.servers.send_if_modified(|known| {
            let is_news = *known != new;
            known.clone_from(&new);
            is_news
        });
        if !is_news {
            return;
        }
        tracing::info!(servers = ?new, "the cluster's servers");
        let json = serde_json::to_vec(&new).expect("a list of strings is plain data");
        if let Err(error) = write_private(&self.path, &json) {
            tracing::warn!(path = %self.path.display(), error = report(&error), "the list of servers cannot be kept");
        }
    }
}
