//! Requests a second and their latency, directly to an endpoint and through the proxy, over kept connections on loopback.
//!
//! `cargo bench -p flotilla-ingress`. Client, proxy and endpoint share the machine, so the ratio is what counts.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark speaks to whoever runs it, and fails as a test does"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_api::ingresses;
use flotilla_ingress::{Endpoints, Options, Port, Proxy, Reachable, SharedRules};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const CLIENTS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
const BODY: &[u8] = &[b'x'; 1024];

struct Fixed(SocketAddr);

impl Endpoints for Fixed {
    fn version(&self) -> u64 {
        1
    }

    fn resolve(&self, _: &str, _: &str, _: &Port) -> Reachable {
        Reachable::At(vec![self.0])
    }
}

#[tokio::main]
async fn main() {
    let tasks = TaskTracker::new();
    let endpoint = endpoint(&tasks).await;
    let proxy = proxy(endpoint, &tasks).await;
    for clients in [1, CLIENTS] {
        for (name, address) in [("direct", endpoint), ("proxied", proxy)] {
            measure(&tasks, address, clients, WARM_UP).await;
            let mut took = measure(&tasks, address, clients, MEASURED).await;
            took.sort_unstable();
            let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1000.0;
            println!(
                "{name:8} clients={clients:<3} requests/s={:<8.0} median={:.3} ms p99={:.3} ms",
                took.len() as f64 / MEASURED.as_secs_f64(),
                at(50),
                at(99)
            );
        }
    }
}

async fn endpoint(tasks: &TaskTracker) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, spawning) = (listener.local_addr().unwrap(), tasks.clone());
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let service = service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(BODY))))
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            spawning.spawn(async move { drop(connection.await) });
        }
    });
    address
}

async fn proxy(endpoint: SocketAddr, tasks: &TaskTracker) -> SocketAddr {
    let rules = SharedRules::default();
    rules.class(&ingresses::flotilla_class());
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({
        "metadata": {"namespace": "a", "name": "a"},
        "spec": {"ingressClassName": ingresses::CLASS, "defaultBackend": backend},
    });
    rules.ingress(&serde_json::from_value(ingress).unwrap());
    rules.classes_synced();
    rules.ingresses_synced();
    rules.secrets_synced();
    let options = Options {
        http_port: Some(0),
        https_port: None,
    };
    let proxy = Proxy::new(options, rules, Arc::new(Fixed(endpoint)), tasks.clone());
    let mut listening = proxy.listening();
    tasks.spawn(proxy.run(CancellationToken::new()));
    let open = listening.wait_for(|now| now.http.is_some()).await.unwrap();
    SocketAddr::from(([127, 0, 0, 1], open.http.unwrap()))
}

/// How long each request took.
async fn measure(
    tasks: &TaskTracker,
    address: SocketAddr,
    clients: usize,
    duration: Duration,
) -> Vec<Duration> {
    let end = Instant::now() + duration;
    let running: Vec<_> = (0..clients)
        .map(|_| tasks.spawn(ask_until(tasks.clone(), address, end)))
        .collect();
    let mut took = Vec::new();
    for client in running {
        took.extend(client.await.unwrap());
    }
    took
}

async fn ask_until(tasks: TaskTracker, address: SocketAddr, end: Instant) -> Vec<Duration> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });
    let mut took = Vec::new();
    while Instant::now() < end {
        let request = Request::get("/").header("host", "a.test");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let begin = Instant::now();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
        took.push(begin.elapsed());
    }
    took
}
