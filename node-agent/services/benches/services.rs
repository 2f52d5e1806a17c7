//! Five thousand services with ten endpoints each: time until they are programmed, time of one update, and what
//! going through a service adds to setting up a connection. In a network namespace of its own; needs root.
//!
//! `cargo bench -p flotilla-services`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark may fail and tells what it found"
)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use flotilla_services::{Network, Options, Proxy, SharedModel};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const SERVICES: u32 = 5000;
const ENDPOINTS: u32 = 10;
const UPDATES: usize = 200;
const CONNECTIONS: usize = 3000;

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 43, 1, 0).to_bits() + number)
}

fn service(number: u32) -> Service {
    let ip = address(number).to_string();
    let service = json!({
        "metadata": {"namespace": "bench", "name": format!("service-{number}")},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "web", "port": 80, "protocol": "TCP"}]},
    });
    serde_json::from_value(service).unwrap()
}

/// The last service has an endpoint that answers; the others' lead to nowhere.
fn slice(number: u32, ready: bool) -> EndpointSlice {
    let base = Ipv4Addr::new(10, 44, 0, 0).to_bits() + number * ENDPOINTS;
    let endpoint = |index: u32| {
        let address = match number + 1 == SERVICES {
            true => Ipv4Addr::new(10, 42, 0, 1),
            false => Ipv4Addr::from_bits(base + index),
        };
        json!({"addresses": [address.to_string()], "nodeName": "other", "conditions": {"ready": ready || index > 0}})
    };
    let count = if number + 1 == SERVICES { 1 } else { ENDPOINTS };
    let name = format!("service-{number}");
    let slice = json!({
        "metadata": {"namespace": "bench", "name": format!("{name}-x"), "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..count).map(endpoint).collect::<Vec<_>>(),
    });
    serde_json::from_value(slice).unwrap()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
    ip("addr add 10.42.0.1/32 dev lo");
    ip("route add 10.43.0.0/16 dev lo");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let before_kib = resident_kib();
    let shared = SharedModel::new("this");
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let options = Options {
        node_name: "this".into(),
        node_addresses: vec![Ipv4Addr::new(127, 0, 0, 1)],
        network: Network {
            cluster: (Ipv4Addr::new(10, 42, 0, 0), 16),
            services: (Ipv4Addr::new(10, 43, 0, 0), 16),
        },
    };
    let proxy = Proxy::new(
        options,
        shared.clone(),
        watch::Sender::new(BTreeSet::new()),
        &tracker,
        &shutdown,
    );
    let mut programmed = proxy.programmed();
    let stop = shutdown.clone();
    tracker.spawn(async move { proxy.run(stop).await.unwrap() });
    // From JSON, as an agent reads it from its disk at its start.
    let objects: Vec<(Vec<u8>, Vec<u8>)> = (0..SERVICES)
        .map(|number| {
            (
                serde_json::to_vec(&service(number)).unwrap(),
                serde_json::to_vec(&slice(number, true)).unwrap(),
            )
        })
        .collect();
    let begin = Instant::now();
    for (service, slice) in &objects {
        shared.change(|model| model.service(&serde_json::from_slice(service).unwrap()));
        shared.change(|model| model.slice(&serde_json::from_slice(slice).unwrap()));
    }
    let read = begin.elapsed();
    shared.services_synced();
    shared.endpoints_synced();
    settled(&shared, &mut programmed).await;
    println!(
        "{SERVICES} services with {ENDPOINTS} endpoints: read in {read:?}, programmed {:?} after the start",
        begin.elapsed()
    );
    drop(objects);
    println!(
        "memory: {} KiB more than before",
        resident_kib().saturating_sub(before_kib)
    );
    updates(&shared, &mut programmed).await;
    connections();
    shutdown.cancel();
    tracker.close();
    tracker.wait().await;
}

async fn settled(shared: &SharedModel, programmed: &mut watch::Receiver<u64>) {
    let version = shared.version();
    programmed
        .wait_for(|programmed| *programmed >= version)
        .await
        .unwrap();
}

async fn updates(shared: &SharedModel, programmed: &mut watch::Receiver<u64>) {
    let mut times = Vec::new();
    for update in 0..UPDATES {
        let changed = slice(17, update % 2 == 1);
        let begin = Instant::now();
        shared.change(|model| model.slice(&changed));
        settled(shared, programmed).await;
        times.push(begin.elapsed());
    }
    report("one update", &mut times);
}

fn connections() {
    let listener = TcpListener::bind("10.42.0.1:8080").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming().take(2 * CONNECTIONS) {
                drop(stream);
            }
        });
        let direct: SocketAddr = "10.42.0.1:8080".parse().unwrap();
        let through = SocketAddr::from((address(SERVICES - 1), 80));
        let (mut plain, mut translated) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            for (target, times) in [(direct, &mut plain), (through, &mut translated)] {
                let begin = Instant::now();
                let stream = TcpStream::connect(target).unwrap();
                times.push(begin.elapsed());
                drop(stream);
            }
        }
        let direct = report("connecting directly", &mut plain);
        let through = report("connecting through a service", &mut translated);
        println!(
            "a service adds {:.1} %",
            (through.as_secs_f64() / direct.as_secs_f64() - 1.0) * 100.0
        );
    });
}

fn report(what: &str, times: &mut [Duration]) -> Duration {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{what}: median {:?}, p99 {:?}", at(50), at(99));
    at(50)
}
