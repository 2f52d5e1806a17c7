//! A node and its pods, each in a network namespace of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_network::{Network, NodeConfig, Options, Overlay};
use k8s_openapi::api::core::v1::Pod as Object;
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::*;

/// Longer than any of these tests may take, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// What should get through has so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is dropped is given up after this.
const BLOCKED: Duration = Duration::from_millis(250);
pub(super) const DNS: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 5);

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).status().unwrap();
    assert!(done.success(), "{program} {arguments:?}");
}

/// Runs a test on a node with a network and an engine.
pub(super) fn on_a_node(test: impl AsyncFnOnce(Node) + Send) {
    std::thread::scope(|scope| {
        let node = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let test = async { test(Node::new().await).await };
                let done = tokio::time::timeout(LIMIT, test).await;
                done.expect("the test took too long");
            });
        });
        node.join().unwrap();
    });
}

/// A network namespace, and where it is reached.
#[derive(Clone)]
pub(super) struct Place {
    namespace: Arc<File>,
    pub(super) address: Ipv4Addr,
    pub(super) uid: String,
    pub(super) object: Object,
}

impl Place {
    fn new(namespace: File, address: Ipv4Addr) -> Self {
        Self {
            namespace: Arc::new(namespace),
            address,
            uid: String::new(),
            object: Object::default(),
        }
    }

    async fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = oneshot::channel();
        let namespace = self.namespace.clone();
        std::thread::spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            // A test that failed waits for nothing.
            let _ = done.send(work());
        });
        result.await.unwrap()
    }

    /// Echoes what comes over connections to the port.
    pub(super) async fn serves(&self, port: u16) {
        let listener = self
            .inside(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
            .await;
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
    }

    /// Echoes datagrams to the port.
    pub(super) async fn answers(&self, port: u16) {
        let socket = self
            .inside(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
            .await;
        std::thread::spawn(move || echo(&socket));
    }

    async fn try_connect(&self, address: Ipv4Addr, port: u16, limit: Duration) -> Option<TcpStream> {
        let address = SocketAddr::from((address, port));
        self.inside(move || TcpStream::connect_timeout(&address, limit).ok())
            .await
    }

    pub(super) async fn reaches_address(&self, address: Ipv4Addr, port: u16) {
        let connected = self.try_connect(address, port, PATIENCE).await;
        assert!(
            connected.is_some(),
            "{} does not reach {address}:{port}",
            self.address
        );
    }

    pub(super) async fn is_kept_from_address(&self, address: Ipv4Addr, port: u16) {
        let connected = self.try_connect(address, port, BLOCKED).await;
        assert!(connected.is_none(), "{} reaches {address}:{port}", self.address);
    }

    pub(super) async fn reaches(&self, other: &Place, port: u16) {
        self.reaches_address(other.address, port).await;
    }

    pub(super) async fn is_kept_from(&self, other: &Place, port: u16) {
        self.is_kept_from_address(other.address, port).await;
    }

    pub(super) async fn is_kept(&self, other: &Place, port: u16) -> bool {
        self.try_connect(other.address, port, BLOCKED).await.is_none()
    }

    pub(super) async fn connects(&self, other: &Place, port: u16) -> Connection {
        Connection(self.try_connect(other.address, port, PATIENCE).await.unwrap())
    }

    /// Datagrams are echoed.
    pub(super) async fn is_answered(&self, address: Ipv4Addr, port: u16) {
        let is_answered = self.ask(address, port, PATIENCE).await;
        assert!(is_answered, "{address}:{port} does not answer {}", self.address);
    }

    pub(super) async fn is_not_answered(&self, address: Ipv4Addr, port: u16) {
        let is_answered = self.ask(address, port, BLOCKED).await;
        assert!(!is_answered, "{address}:{port} answers {}", self.address);
    }

    /// Whether one of the datagrams that are sent until the limit is echoed.
    async fn ask(&self, address: Ipv4Addr, port: u16, limit: Duration) -> bool {
        self.inside(move || {
            let end = Instant::now() + limit;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(BLOCKED)).unwrap();
            let mut is_answered = false;
            while !is_answered && Instant::now() < end {
                socket.send_to(b"ahoy", (address, port)).unwrap();
                is_answered = socket.recv(&mut [0; 8]).is_ok();
            }
            is_answered
        })
        .await
    }
}

fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        // Who asked may have gone.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

pub(super) struct Connection(TcpStream);

impl Connection {
    /// Whether what is said is still echoed.
    pub(super) async fn goes_on(mut self) -> bool {
        let echoed = tokio::task::spawn_blocking(move || {
            self.0.set_read_timeout(Some(PATIENCE)).unwrap();
            self.0.write_all(b"ahoy").unwrap();
            self.0.read_exact(&mut [0; 4]).is_ok()
        });
        echoed.await.unwrap()
    }
}

/// An engine and what it is told.
pub(super) struct Told {
    pub(super) shared: SharedModel,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Told {
    fn start() -> Self {
        let told = Self {
            shared: SharedModel::new(),
            shutdown: CancellationToken::new(),
            tracker: TaskTracker::new(),
        };
        let (engine, stop) = (Engine::new(told.shared.clone()), told.shutdown.clone());
        told.tracker.spawn(async move { engine.run(stop).await.unwrap() });
        told.shared.change(|model| {
            for name in ["shop", "ops", "kube-system"] {
                model.namespace(&yaml(&format!(
                    "metadata: {{name: {name}, labels: {{name: {name}}}}}"
                )));
            }
            model.dns(Some(DNS));
        });
        told
    }

    pub(super) fn synced(&self) {
        self.shared.policies_synced();
        self.shared.namespaces_synced();
        self.shared.pods_synced();
    }

    pub(super) async fn settled(&self) {
        let version = self.shared.change(|_| {});
        let mut programmed = self.shared.programmed();
        programmed
            .wait_for(|programmed| *programmed >= version)
            .await
            .unwrap();
    }

    pub(super) async fn policy(&mut self, name: &str, spec: &str) {
        let policy = yaml(&format!(
            "metadata: {{namespace: shop, name: {name}}}\nspec: {spec}"
        ));
        self.shared.change(|model| model.policy(&policy));
    }

    /// All that the node's engine was told.
    pub(super) async fn tell(&self, node: &Node) {
        self.shared.change(|model| {
            for place in &node.places {
                model.local_pod(&place.uid, &place.object, place.address);
            }
            for (name, spec) in &node.policies {
                model.policy(&yaml(&format!(
                    "metadata: {{namespace: shop, name: {name}}}\nspec: {spec}"
                )));
            }
        });
    }

    async fn stop(&self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

pub(super) struct Node {
    network: Network,
    _state: tempfile::TempDir,
    told: Told,
    places: Vec<Place>,
    policies: BTreeMap<String, String>,
    pub(super) itself: Place,
}

impl Node {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let network = Network::new(Options {
            bridge: "flt0".into(),
            state_dir: state.path().join("network"),
            node_address: "192.0.2.1".parse().unwrap(),
            overlay: Overlay::Auto,
            mtu: None,
        });
        let network = network.unwrap();
        let config = NodeConfig {
            pod_cidr: "10.42.0.0/24".into(),
            cluster_cidr: "10.42.0.0/16".into(),
            cluster_dns: DNS.to_string(),
        };
        network.configure(config).await.unwrap();
        network.route_services("10.43.0.0/16").await.unwrap();
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        let told = Told::start();
        told.synced();
        Self {
            network,
            _state: state,
            told,
            places: Vec::new(),
            policies: BTreeMap::new(),
            itself: Place::new(namespace, Ipv4Addr::new(10, 42, 0, 1)),
        }
    }

    /// A pod with a network that nobody was told of.
    pub(super) async fn attach(&mut self, namespace: &str, labels: &str) -> Place {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let netns = made.join().unwrap();
        let uid = format!("uid-{}", self.places.len());
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()));
        let address = self.network.attach(&uid, &path).await.unwrap();
        let mut place = Place::new(netns, address.to_string().parse().unwrap());
        place.object = object(namespace, &uid, labels);
        place.uid = uid;
        self.places.push(place.clone());
        place
    }

    /// A pod that was admitted.
    pub(super) async fn pod(&mut self, namespace: &str, labels: &str) -> Place {
        let place = self.attach(namespace, labels).await;
        let admitted = self.told.shared.admit(&place.uid, &place.object, place.address);
        admitted.await.unwrap();
        place
    }

    pub(super) async fn relabel(&mut self, place: &Place, labels: &str) {
        let namespace = place.object.metadata.namespace.clone().unwrap();
        let object = object(&namespace, &place.uid, labels);
        self.told
            .shared
            .change(|model| model.local_pod_changed(&place.uid, &object));
        self.told.settled().await;
    }

    pub(super) async fn policy(&mut self, name: &str, spec: &str) {
        self.policies.insert(name.to_owned(), spec.to_owned());
        self.told.policy(name, spec).await;
        self.told.settled().await;
    }

    pub(super) async fn policy_gone(&mut self, name: &str) {
        self.policies.remove(name);
        self.told.shared.change(|model| model.policy_gone("shop", name));
        self.told.settled().await;
    }

    /// The node answers at the address of the cluster's names.
    pub(super) async fn serves_names(&self) {
        let socket = UdpSocket::bind((DNS, 53)).unwrap();
        std::thread::spawn(move || echo(&socket));
    }

    /// An address whose port 80 leads to a pod's port, as services do it.
    pub(super) async fn service_of(&self, pod: &Place, port: u16) -> Ipv4Addr {
        let address = pod.address;
        let rules = format!(
            "table ip test {{
               chain prerouting {{ type nat hook prerouting priority dstnat; ip daddr {SERVICE} tcp dport 80 dnat to {address}:{port}; }}
               chain postrouting {{ type nat hook postrouting priority srcnat; ip saddr {address} ip daddr {address} masquerade; }}
             }}"
        );
        run("nft", &[&rules]);
        SERVICE
    }

    /// Another engine that knows of namespaces only, in the place of the one that ran.
    pub(super) async fn restart_without_knowledge(&mut self) -> Told {
        self.told.stop().await;
        Told::start()
    }

    pub(super) async fn eventually(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let reached = async {
            while !is_so().await {
                tokio::task::yield_now().await;
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE * 2, reached).await.is_ok(),
            "{what}"
        );
    }
}

fn object(namespace: &str, name: &str, labels: &str) -> Object {
    yaml(&format!(
        "
metadata: {{namespace: {namespace}, name: {name}, labels: {{{labels}}}}}
spec: {{containers: [{{name: c, ports: [{{name: http, containerPort: 8080}}]}}]}}"
    ))
}
