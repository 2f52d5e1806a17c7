//! Tells load balancers whether this node has endpoints of a service (`healthCheckNodePort`).
//!
//! One small HTTP listener per such service. Answers 200 when there are, 503 when there are none, to whatever is asked.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use flotilla_report::report;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::ServiceName;

/// Longer requests are not read to their end.
const REQUEST_BYTES_MAX: usize = 4096;
/// A client that says nothing is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before a port that is taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What is answered on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) service: ServiceName,
    pub(crate) local_endpoints: usize,
}

/// The listeners, by port.
#[derive(Debug)]
pub(crate) struct HealthChecks {
    running: BTreeMap<u16, (watch::Sender<Health>, CancellationToken)>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl HealthChecks {
    pub(crate) fn new(tracker: TaskTracker, shutdown: CancellationToken) -> Self {
        Self {
            running: BTreeMap::new(),
            tracker,
            shutdown,
        }
    }

    /// Makes the listeners those that are wanted.
    pub(crate) fn set(&mut self, wanted: BTreeMap<u16, Health>) {
        self.running.retain(|port, (_, stop)| {
            let keep = wanted.contains_key(port);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for (port, health) in wanted {
            match self.running.get(&port) {
                Some((known, _)) => {
                    known.send_if_modified(|known| {
                        *known != health && {
                            *known = health;
                            true
                        }
                    });
                }
                None => {
                    let (state, stop) = (watch::Sender::new(health), self.shutdown.child_token());
                    let (seen, ended) = (state.subscribe(), stop.clone());
                    let tracker = self.tracker.clone();
                    self.tracker.spawn(async move {
                        // Dropping the listener cuts off checks under way, which will be made again.
                        tokio::select! {
                            () = ended.cancelled() => {}
                            () = listen(port, seen, tracker) => {}
                        }
                    });
                    self.running.insert(port, (state, stop));
                }
            }
        }
    }
}

async fn listen(port: u16, health: watch::Receiver<Health>, tracker: TaskTracker) {
    let mut is_told = false;
    let listener = loop {
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => break listener,
            Err(error) => {
                if !is_told {
                    tracing::error!(port, error = report(&error), "health checks cannot be answered");
                }
                is_told = true;
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = health.borrow().clone();
                tracker.spawn(async move {
                    // A client that goes away needs no answer.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &health)).await;
                });
            }
            Err(error) => {
                tracing::debug!(port, error = report(&error), "a health check was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, health: &Health) -> io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 512];
    while request.len() < REQUEST_BYTES_MAX && !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part).await? {
            0 => break,
            length => request.extend_from_slice(&part[..length]),
        }
    }
    stream.write_all(response(health).as_bytes()).await?;
    stream.shutdown().await
}

/// What kube-proxy answers.
fn response(health: &Health) -> String {
    let (namespace, name) = health.service.split_once('/').unwrap_or_default();
    let count = health.local_endpoints;
    let status = if count > 0 {
        "200 OK"
    } else {
        "503 Service Unavailable"
    };
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\
         \"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {count}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_endpoints_answers_503() {
        let health = |local_endpoints| Health {
            service: "shop/web".into(),
            local_endpoints,
        };
        let answer = response(&health(2));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("\"name\": \"web\"") && answer.contains("\"localEndpoints\": 2"),
            "{answer}"
        );
        assert!(response(&health(0)).starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    }
}
