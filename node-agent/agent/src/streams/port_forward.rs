//! `portforward`: one connection to a port inside a pod.

use flotilla_api::{Reason, Status};
use flotilla_report::report;
use flotilla_tunnel::Ends;
use flotilla_tunnel::copy::{Carried, carry};
use flotilla_tunnel::request::{CONNECTION, PortForwardRequest};
use tokio::net::TcpStream;

use super::Streams;
use crate::machine::ConnectPortError;

/// Connects, so that the client learns at once if nothing listens there.
pub(super) async fn begin(streams: &Streams, wanted: &PortForwardRequest) -> Result<TcpStream, Status> {
    let (uid, _) = streams.find(&wanted.target)?;
    let machine = &streams.surroundings.machine;
    let connected = machine.connect(&uid, wanted.port).await;
    connected.map_err(|error| {
        let reason = match error {
            ConnectPortError::NoSandbox => Reason::NotFound,
            _ => Reason::InternalError,
        };
        let (port, pod) = (wanted.port, &wanted.target.pod);
        Status::new(
            reason,
            format!("error forwarding port {port} to pod {pod}: {}", report(&error)),
        )
    })
}

/// Carries the connection to its end.
pub(super) async fn run(connection: TcpStream, ends: Ends) {
    if let Carried::Failed(error) = carry(connection, ends, CONNECTION).await {
        // As a reset connection looks: the client sees its end without the end of the data.
        tracing::debug!(error = report(&error), "a forwarded connection failed");
    }
}
