//! What this server does for nodes only while it leads.

use std::sync::Arc;

use flotilla_raft::Leadership;
use flotilla_resources::Resources;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{leader_lease, nodes::Assignments, options::ClusterNetwork};

/// Keeps `leading` filled while this replica leads, until shutdown.
pub(crate) async fn follow(
    resources: Resources,
    network: ClusterNetwork,
    leading: watch::Sender<Option<Arc<Assignments>>>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
) {
    let mut leadership = resources.replica().leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        if now.is_self {
            let fenced = resources.fenced(now.term);
            // Dropping a half-made start is harmless: it only reads.
            tokio::select! {
                assignments = Assignments::start(fenced, network.clone(), &tracker) => {
                    leading.send_replace(Some(assignments));
                }
                () = lost(&mut leadership, &now) => continue,
                () = shutdown.cancelled() => return,
            }
        }
        let announce = async {
            if let Some(leader) = now.leader.as_ref().filter(|_| now.is_self) {
                leader_lease::publish(&resources.fenced(now.term), &leader.name).await;
            }
            std::future::pending::<()>().await;
        };
        // Nothing is lost by dropping any arm: a lease half written is the next leader's to write.
        tokio::select! {
            () = announce => {}
            () = lost(&mut leadership, &now) => {}
            () = shutdown.cancelled() => {
                resign(&leading);
                return;
            }
        }
        resign(&leading);
    }
}

fn resign(leading: &watch::Sender<Option<Arc<Assignments>>>) {
    if let Some(assignments) = leading.send_replace(None) {
        assignments.stop();
    }
}

/// Ends when term or role are no longer `then`.
async fn lost(leadership: &mut watch::Receiver<Leadership>, then: &Leadership) {
    let differs = |now: &Leadership| now.is_self != then.is_self || (now.is_self && now.term != then.term);
    let gone = leadership.wait_for(differs).await.is_err();
    if gone {
        // The replica is gone; shutdown follows.
        std::future::pending::<()>().await;
    }
}
