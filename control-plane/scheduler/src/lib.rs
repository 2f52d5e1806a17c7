//! Finds a node for every pod that has none, and binds it.
//!
//! Filters and scores are small pure functions over the in-memory table of nodes ([`cluster`]); the loop around them is
//! `binding.rs`. Never changes a pod but to bind it or to say why it is not bound.

mod binding;
pub mod classes;
pub mod cluster;
pub mod filters;
pub mod neighbours;
pub mod place;
pub mod ports;
pub mod queue;
mod report;
pub mod scores;
mod settling;
pub mod spread;
pub mod storage;
#[cfg(test)]
mod tests;

use flotilla_raft::Leadership;
use flotilla_resources::Resources;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Schedules pods whenever this replica leads, until shutdown.
pub async fn run(
    resources: Resources,
    mut leadership: watch::Receiver<Leadership>,
    shutdown: CancellationToken,
) {
    loop {
        let term = leadership.borrow_and_update().clone();
        // Dropping the loop anywhere is safe: what it knew is read anew, and bindings are whole or not at all.
        let running = async {
            match term.is_self {
                true => binding::schedule(resources.fenced(term.term)).await,
                false => std::future::pending().await,
            }
        };
        let differs =
            |now: &Leadership| now.is_self != term.is_self || (now.is_self && now.term != term.term);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = running => return,
            changed = leadership.wait_for(differs) => if changed.is_err() { return },
        }
    }
}
