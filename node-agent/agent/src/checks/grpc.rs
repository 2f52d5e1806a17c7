//! Probes by gRPC's health protocol.

use std::time::Duration;

use flotilla_lifecycle::ProbeOutcome;
use flotilla_proto::health::health_check_response::ServingStatus;
use flotilla_proto::health::health_client::HealthClient;
use flotilla_proto::health::{HealthCheckRequest, HealthCheckResponse};
use flotilla_report::report;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::within;

/// Kubelet's name in requests.
const AGENT: &str = "kube-probe/1.35";

/// Asks the service at `address`; only `SERVING` is success.
pub(super) async fn probe(address: &str, service: &str, limit: Duration) -> ProbeOutcome {
    let seconds = limit.as_secs();
    let channel = match within(limit, connect(address)).await {
        Some(Ok(channel)) => channel,
        Some(Err(why)) => {
            return ProbeOutcome::Failure(format!("error: failed to connect service at {address:?}: {why}"));
        }
        None => {
            return ProbeOutcome::Failure(format!(
                "timeout: failed to connect service {address:?} within {seconds}s: context deadline exceeded"
            ));
        }
    };
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    match within(limit, client.check(request)).await {
        Some(Ok(answer)) => judge(answer.get_ref()),
        Some(Err(status)) => ProbeOutcome::Failure(words(&status, seconds)),
        None => ProbeOutcome::Failure(words(&Status::deadline_exceeded("no answer"), seconds)),
    }
}

async fn connect(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| report(&error))?;
    let endpoint = endpoint.user_agent(AGENT).map_err(|error| report(&error))?;
    endpoint.connect().await.map_err(|error| report(&error))
}

fn judge(answer: &HealthCheckResponse) -> ProbeOutcome {
    match answer.status() {
        ServingStatus::Serving => ProbeOutcome::Success,
        other => ProbeOutcome::Failure(format!(
            "service unhealthy (responded with {:?})",
            other.as_str_name()
        )),
    }
}

fn words(status: &Status, seconds: u64) -> String {
    let error = format!(
        "rpc error: code = {:?} desc = {}",
        status.code(),
        status.message()
    );
    match status.code() {
        Code::Unimplemented => format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {error}"
        ),
        Code::DeadlineExceeded => {
            format!("timeout: health rpc did not complete within {seconds}s: {error}")
        }
        _ => format!("error: health rpc probe failed: {error}"),
    }
}
