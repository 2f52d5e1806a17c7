//! Five thousand services with ten endpoints each: time until they are programmed, time of one update, and what
//! going through a service adds to setting up a connection. In a network namespace of its own; needs root.
//!
//! Connections go the way that they go on a node: from a pod over the node's bridge, routed and tracked, to one of ten
//! other pods, and from the node itself to them. Direct ones and those through a service take turns in short rounds, so
//! that whatever else the machine does meets both.
//!
//! `cargo bench -p flotilla-services`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark may fail and tells what it found"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use flotilla_network::{NodeConfig, Overlay};
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
const ROUNDS: usize = 50;
const CONNECTIONS_PER_ROUND: usize = 200;

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

/// Endpoints that lead to nowhere.
fn nobody(number: u32) -> Vec<IpAddr> {
    let base = Ipv4Addr::new(10, 44, 0, 0).to_bits() + number * ENDPOINTS;
    (base..base + ENDPOINTS)
        .map(|address| Ipv4Addr::from_bits(address).into())
        .collect()
}

fn slice(number: u32, addresses: &[IpAddr], ready: bool) -> EndpointSlice {
    let endpoint = |(index, address): (usize, &IpAddr)| json!({"addresses": [address.to_string()], "nodeName": "other", "conditions": {"ready": ready || index > 0}});
    let name = format!("service-{number}");
    let slice = json!({
        "metadata": {"namespace": "bench", "name": format!("{name}-x"), "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
        "endpoints": addresses.iter().enumerate().map(endpoint).collect::<Vec<_>>(),
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = std::env::temp_dir().join(format!("flotilla-bench-services-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    runtime.block_on(async {
        let pods = Pods::start(folder.clone()).await;
        measure(&pods).await;
    });
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A pod's network namespace, held by a thread in it.
struct Pod {
    netns: PathBuf,
    address: IpAddr,
    /// The thread serves once it is told to, and goes on until the process ends.
    serve: Sender<()>,
}

/// Pods on the bridge of this node: one that asks, and those that are asked.
struct Pods {
    client: Pod,
    servers: Vec<Pod>,
}

impl Pods {
    async fn start(state_dir: PathBuf) -> Self {
        let network = flotilla_network::Network::new(flotilla_network::Options {
            bridge: "bench0".into(),
            state_dir,
            node_address: Ipv4Addr::LOCALHOST.into(),
            overlay: Overlay::default(),
            mtu: Some(1500),
        });
        let network = network.unwrap();
        let config = NodeConfig {
            pod_cidr: "10.42.0.0/24".into(),
            cluster_cidr: "10.42.0.0/16".into(),
            cluster_dns: String::new(),
        };
        network.configure(config).await.unwrap();
        network.route_services("10.43.0.0/16").await.unwrap();
        let mut pods = Vec::new();
        for number in 0..=ENDPOINTS {
            let (serve, told) = channel();
            let netns = pod_thread(told);
            let address = network.attach(&format!("pod-{number}"), &netns).await.unwrap();
            pods.push(Pod {
                netns,
                address,
                serve,
            });
        }
        let client = pods.remove(0);
        pods.iter().for_each(|pod| pod.serve.send(()).unwrap());
        Self {
            client,
            servers: pods,
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.servers.iter().map(|pod| pod.address).collect()
    }
}

/// Starts a thread in a network namespace of its own, and says where that is.
fn pod_thread(told: Receiver<()>) -> PathBuf {
    let (tell, entered) = channel();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let own = std::fs::read_link("/proc/thread-self").unwrap();
        tell.send(PathBuf::from("/proc").join(own).join("ns/net"))
            .unwrap();
        if told.recv().is_ok() {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
            listener.incoming().for_each(drop);
        }
    });
    entered.recv().unwrap()
}

async fn measure(pods: &Pods) {
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
            // The last service's endpoints answer.
            let addresses = match number + 1 == SERVICES {
                true => pods.addresses(),
                false => nobody(number),
            };
            (
                serde_json::to_vec(&service(number)).unwrap(),
                serde_json::to_vec(&slice(number, &addresses, true)).unwrap(),
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
    connections(pods);
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
        let changed = slice(17, &nobody(17), update % 2 == 1);
        let begin = Instant::now();
        shared.change(|model| model.slice(&changed));
        settled(shared, programmed).await;
        times.push(begin.elapsed());
    }
    report("one update", &mut times);
}

fn connections(pods: &Pods) {
    let direct: Vec<SocketAddr> = pods
        .addresses()
        .into_iter()
        .map(|address| SocketAddr::from((address, 8080)))
        .collect();
    let through = SocketAddr::from((address(SERVICES - 1), 80));
    let from_pod = flotilla_network::netns::enter(&pods.client.netns, || Ok(rounds(&direct, through)));
    compare("a pod", &from_pod.unwrap());
    compare("the node", &rounds(&direct, through));
}

/// Medians of each round: connecting directly, and through the service.
fn rounds(direct: &[SocketAddr], through: SocketAddr) -> Vec<(Duration, Duration)> {
    let round = |_| {
        let (mut plain, mut translated) = (Vec::new(), Vec::new());
        for number in 0..CONNECTIONS_PER_ROUND {
            let target = direct[number % direct.len()];
            // Neither always comes first.
            if number % 2 == 0 {
                plain.push(connecting(target));
                translated.push(connecting(through));
            } else {
                translated.push(connecting(through));
                plain.push(connecting(target));
            }
        }
        (median(&mut plain), median(&mut translated))
    };
    (0..ROUNDS).map(round).collect()
}

fn connecting(target: SocketAddr) -> Duration {
    let begin = Instant::now();
    let stream = TcpStream::connect(target).unwrap();
    let time = begin.elapsed();
    drop(stream);
    time
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The median round of each, and what a service adds in the median round.
fn compare(who: &str, rounds: &[(Duration, Duration)]) {
    let (mut direct, mut through): (Vec<_>, Vec<_>) = rounds.iter().copied().unzip();
    let added = |(direct, through): &(Duration, Duration)| through.as_secs_f64() / direct.as_secs_f64() - 1.0;
    let mut added: Vec<f64> = rounds.iter().map(added).collect();
    added.sort_by(f64::total_cmp);
    println!(
        "{who} connects directly in {:?}, through a service in {:?}: {:.1} % more ({ROUNDS} rounds, half of them between \
         {:.1} and {:.1} %)",
        median(&mut direct),
        median(&mut through),
        added[added.len() / 2] * 100.0,
        added[added.len() / 4] * 100.0,
        added[added.len() * 3 / 4] * 100.0,
    );
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{what}: median {:?}, p99 {:?}", at(50), at(99));
}
