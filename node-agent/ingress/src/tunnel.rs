//! Connections that have changed their protocol, such as WebSockets: bytes to and fro until either side has enough.

use flotilla_report::report;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use crate::connection::Caller;

/// Carries bytes between a client and an endpoint.
pub(crate) async fn carry(client: OnUpgrade, endpoint: OnUpgrade, caller: &Caller) {
    let (client, endpoint) = match tokio::try_join!(client, endpoint) {
        Ok(sides) => sides,
        Err(error) => {
            tracing::debug!(error = report(&error), "a change of protocol came to nothing");
            return;
        }
    };
    // Dropping the copy closes both sides, which is what all other arms are for.
    tokio::select! {
        () = copy(client, endpoint) => {}
        () = caller.silent() => {}
        () = caller.drained() => {}
    }
}

async fn copy(client: Upgraded, endpoint: Upgraded) {
    let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await {
        tracing::debug!(error = report(&error), "a tunnel broke");
    }
}
