//! Connections to ports of one pod.

use std::sync::Arc;

use flotilla_api::Status;
use flotilla_tunnel::Ends;
use flotilla_tunnel::request::{PORT_FORWARD, PortForwardRequest, Target};
use k8s_openapi::api::core::v1::Pod;

use super::{NodeStreams, options};

/// Opens connections to the pod that a request has named.
#[derive(Clone)]
pub(super) struct Forwarder {
    streams: Arc<dyn NodeStreams>,
    node: String,
    target: Target,
}

impl Forwarder {
    pub(super) fn new(streams: Arc<dyn NodeStreams>, pod: &Pod, node: &str) -> Self {
        Self {
            streams,
            node: node.to_owned(),
            target: options::target(pod),
        }
    }

    /// A new connection to a port; its frames are on [`flotilla_tunnel::request::CONNECTION`].
    pub(super) async fn connect(&self, port: u16) -> Result<Ends, Status> {
        let request = PortForwardRequest {
            target: self.target.clone(),
            port,
        };
        let request = serde_json::to_vec(&request).map_err(Status::internal)?;
        self.streams.open(&self.node, PORT_FORWARD, request.into()).await
    }

    /// What a client is told when a connection breaks.
    pub(super) fn lost(&self, port: u16) -> String {
        format!(
            "error forwarding port {port} to pod {}: the connection was lost",
            self.target.pod
        )
    }
}
