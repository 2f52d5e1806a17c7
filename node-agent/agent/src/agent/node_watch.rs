//! Tells the servers what this node is and how it does, whenever that changes.

use std::sync::Arc;
use std::time::Duration;

use flotilla_ingress::Listening;
use flotilla_lifecycle::pressure::Pressures;
use flotilla_report::report;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::machine::Machine;
use crate::node::{self, Host};

/// Between looks at the images.
const NODE_CHECK: Duration = Duration::from_secs(10);

/// Keeps the Node object up to date.
pub(super) struct NodeWatch {
    pub(super) host: Host,
    pub(super) machine: Arc<dyn Machine>,
    pub(super) pressures: watch::Receiver<Pressures>,
    pub(super) obstacle: watch::Receiver<Option<String>>,
    pub(super) listening: watch::Receiver<Listening>,
    pub(super) newest: Option<(node::Condition, Node)>,
}

impl NodeWatch {
    pub(super) fn first(mut self, node: &watch::Sender<bytes::Bytes>) -> Self {
        self.look(node);
        self
    }

    pub(super) async fn run(mut self, node: watch::Sender<bytes::Bytes>, shutdown: CancellationToken) {
        loop {
            // Every arm only waits.
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.obstacle.changed() => if changed.is_err() { return },
                changed = self.pressures.changed() => if changed.is_err() { return },
                // Without a proxy there are no ports to tell of, ever.
                Ok(()) = self.listening.changed() => {}
                () = tokio::time::sleep(NODE_CHECK) => {}
            }
            self.look(&node);
        }
    }

    fn look(&mut self, node: &watch::Sender<bytes::Bytes>) {
        let obstacle = self.obstacle.borrow_and_update().clone();
        let images = self.machine.images().unwrap_or_else(|error| {
            tracing::warn!(error = report(&error), "the images cannot be listed");
            Vec::new()
        });
        let pressures = *self.pressures.borrow_and_update();
        let listening = *self.listening.borrow_and_update();
        let condition = node::observe(pressures, &images, obstacle, listening);
        if self.newest.as_ref().is_some_and(|(known, _)| *known == condition) {
            return;
        }
        let previous = self.newest.as_ref().map(|(_, node)| node);
        let new = self.host.node(&condition, previous, Timestamp::now());
        node.send_replace(serde_json::to_vec(&new).expect("a node is plain data").into());
        self.newest = Some((condition, new));
    }
}
