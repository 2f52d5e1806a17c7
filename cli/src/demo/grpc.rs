//! The demo's health by gRPC's own protocol, for probes of that kind.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use flotilla_proto::health::health_check_response::ServingStatus;
use flotilla_proto::health::health_server::{Health, HealthServer};
use flotilla_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::{Demo, reason};

/// The name of the demo's only service.
const SERVICE: &str = "demo";

/// Serves on a thread of its own, until the process ends.
pub(super) fn start(port: u16, demo: Arc<Demo>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
    let bound = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let listener = bound.map_err(|error| format!("cannot listen on 0.0.0.0:{port}: {}", reason(&error)))?;
    let serve = move || {
        let serving = Server::builder()
            .add_service(HealthServer::new(DemoHealth(demo)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        if let Err(error) = runtime.block_on(serving) {
            super::log(&format!("gRPC is not served any more: {error}"));
        }
    };
    let spawned = thread::Builder::new().spawn(serve);
    spawned
        .map(drop)
        .map_err(|error| format!("cannot start a thread: {error}"))
}

struct DemoHealth(Arc<Demo>);

#[tonic::async_trait]
impl Health for DemoHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !matches!(service.as_str(), "" | SERVICE) {
            return Err(Status::not_found("unknown service"));
        }
        let status = match self.0.healthy.load(Ordering::SeqCst) {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }
}
