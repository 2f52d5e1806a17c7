//! Services in a network namespace of their own, with real connections.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::*;

/// Longer than any of these tests may take, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
const SERVICE: &str = "10.43.0.5:80";
const OUTSIDE: &str = "192.0.2.2";
const PODS: [&str; 3] = ["10.42.0.1", "10.42.0.2", "10.42.0.3"];

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

/// Runs a test in a namespace that has the addresses of a node and of its pods.
fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let node = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            for pod in 1..=3 {
                ip(&format!("addr add 10.42.0.{pod}/32 dev lo"));
            }
            ip("route add 10.43.0.0/16 dev lo");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::time::timeout(LIMIT, test())
                    .await
                    .expect("the test took too long")
            });
        });
        node.join().unwrap();
    });
}

struct Node {
    shared: SharedModel,
    shutdown: CancellationToken,
    tracker: TaskTracker,
    programmed: watch::Receiver<u64>,
}

impl Node {
    fn start() -> Self {
        Self::start_with(SharedModel::new("this"))
    }

    fn start_with(shared: SharedModel) -> Self {
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let options = Options {
            node_name: "this".into(),
            node_addresses: vec![Ipv4Addr::new(192, 0, 2, 1)],
            network: Network {
                cluster: (Ipv4Addr::new(10, 42, 0, 0), 16),
                services: (Ipv4Addr::new(10, 43, 0, 0), 16),
            },
        };
        let announced = watch::Sender::new(BTreeSet::new());
        let proxy = Proxy::new(options, shared.clone(), announced, &tracker, &shutdown);
        let (programmed, stop) = (proxy.programmed(), shutdown.clone());
        tracker.spawn(async move { proxy.run(stop).await.unwrap() });
        Self {
            shared,
            shutdown,
            tracker,
            programmed,
        }
    }

    async fn stop(self) -> SharedModel {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.shared
    }

    /// A service `web` with these fields more.
    fn service(&self, fields: &Value) {
        let mut spec = json!({
            "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
            "ports": [{"name": "web", "port": 80, "protocol": "TCP"}],
        });
        spec.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let ingress = json!([{"ip": "198.51.100.77"}]);
        let service = json!({
            "metadata": {"namespace": "a", "name": "web"}, "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        self.shared
            .change(|model| model.service(&serde_json::from_value(service).unwrap()));
        self.shared.services_synced();
    }

    /// These are its endpoints; waits until the kernel knows.
    async fn endpoints(&mut self, protocol: &str, pods: &[&str]) {
        let endpoint = |pod: &&str| json!({"addresses": [pod], "nodeName": "this"});
        let slice = json!({
            "metadata": {"namespace": "a", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "web", "port": 8080, "protocol": protocol}],
            "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        });
        self.shared
            .change(|model| model.slice(&serde_json::from_value(slice).unwrap()));
        self.shared.endpoints_synced();
        self.settled().await;
    }

    async fn settled(&mut self) {
        let version = self.shared.version();
        let reached = self.programmed.wait_for(|programmed| *programmed >= version);
        reached.await.unwrap();
    }

    /// Pods 1 to 3 answer with their number and the address of who asked.
    async fn pods_answer(&self) {
        for pod in 1..=3 {
            let listener = TcpListener::bind((Ipv4Addr::new(10, 42, 0, pod), 8080)).await;
            self.serve(listener.unwrap(), pod);
        }
    }

    fn serve(&self, listener: TcpListener, pod: u8) {
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move {
            loop {
                let (mut stream, peer) = tokio::select! {
                    () = shutdown.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap(),
                };
                // Who asked may have gone.
                let _ = stream.write_all(format!("{pod} {}", peer.ip()).as_bytes()).await;
            }
        });
    }
}

async fn ask(address: &str) -> std::io::Result<String> {
    let mut answer = String::new();
    TcpStream::connect(address)
        .await?
        .read_to_string(&mut answer)
        .await?;
    Ok(answer)
}

async fn pods_behind(address: &str, questions: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..questions {
        let answer = ask(address).await.unwrap();
        seen.insert(answer.split(' ').next().unwrap().to_owned());
    }
    seen
}

#[test]
fn connections_are_spread_over_endpoints_and_refused_without_any() {
    on_a_node(|| async {
        let mut node = Node::start();
        node.pods_answer().await;
        node.service(&json!({}));
        node.endpoints("TCP", &PODS).await;
        assert_eq!(pods_behind(SERVICE, 60).await.len(), 3);
        node.endpoints("TCP", &PODS[1..2]).await;
        assert_eq!(pods_behind(SERVICE, 10).await, BTreeSet::from(["2".to_owned()]));
        node.endpoints("TCP", &[]).await;
        let begin = Instant::now();
        let refused = ask(SERVICE).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(begin.elapsed() < Duration::from_secs(1), "refused at once");
        for nobody in ["10.43.0.5:81", "10.43.9.9:80"] {
            assert_eq!(
                ask(nobody).await.unwrap_err().kind(),
                std::io::ErrorKind::ConnectionRefused
            );
        }
        node.stop().await;
    });
}

#[test]
fn a_client_stays_with_its_endpoint_until_that_is_gone() {
    on_a_node(|| async {
        let mut node = Node::start();
        node.pods_answer().await;
        node.service(&json!({"sessionAffinity": "ClientIP"}));
        node.endpoints("TCP", &PODS).await;
        let first = pods_behind(SERVICE, 20).await;
        assert_eq!(first.len(), 1, "{first:?}");
        let rest = (1..=3).filter(|pod| !first.contains(&pod.to_string()));
        let rest: Vec<&str> = rest.map(|pod| PODS[pod - 1]).collect();
        node.endpoints("TCP", &rest).await;
        let second = pods_behind(SERVICE, 20).await;
        assert!(second.len() == 1 && second != first, "{second:?}");
        let shared = node.stop().await;
        let mut node = Node::start_with(shared);
        node.pods_answer().await;
        node.settled().await;
        assert_eq!(
            pods_behind(SERVICE, 20).await,
            second,
            "an agent's restart changes nothing"
        );
        node.stop().await;
    });
}

#[test]
fn a_udp_client_goes_on_with_another_endpoint() {
    on_a_node(|| async {
        let mut node = Node::start();
        for pod in 1..=2 {
            let socket = UdpSocket::bind((Ipv4Addr::new(10, 42, 0, pod), 8080))
                .await
                .unwrap();
            let shutdown = node.shutdown.clone();
            node.tracker.spawn(async move {
                let mut question = [0; 16];
                loop {
                    let (_, peer) = tokio::select! {
                        () = shutdown.cancelled() => return,
                        received = socket.recv_from(&mut question) => received.unwrap(),
                    };
                    socket.send_to(&[pod], peer).await.unwrap();
                }
            });
        }
        node.service(&json!({"ports": [{"name": "web", "port": 80, "protocol": "UDP"}]}));
        node.endpoints("UDP", &PODS[..1]).await;
        let client = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        client.connect(SERVICE).await.unwrap();
        for pod in [1, 2, 1] {
            node.endpoints("UDP", &[PODS[usize::from(pod) - 1]]).await;
            client.send(b"?").await.unwrap();
            let mut answer = [0];
            client.recv(&mut answer).await.unwrap();
            assert_eq!(answer, [pod]);
        }
        node.stop().await;
    });
}

#[test]
fn an_open_connection_outlives_its_endpoint_and_an_agents_restart() {
    on_a_node(|| async {
        let mut node = Node::start();
        let echo = TcpListener::bind("10.42.0.1:8080").await.unwrap();
        node.service(&json!({}));
        node.endpoints("TCP", &PODS[..1]).await;
        let (client, accepted) = tokio::join!(TcpStream::connect(SERVICE), echo.accept());
        let (mut client, (mut server, _)) = (client.unwrap(), accepted.unwrap());
        node.endpoints("TCP", &PODS[1..2]).await;
        let shared = node.stop().await;
        let mut node = Node::start_with(shared);
        node.settled().await;
        client.write_all(b"still here").await.unwrap();
        let mut heard = [0; 10];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"still here");
        node.stop().await;
    });
}

/// Something beside the node with a network of its own, alive as long as this: a client outside, or a pod.
struct Neighbour(Child);

impl Neighbour {
    fn new(link: &str, own: &str, of_node: &str) -> Self {
        let neighbour = Self(
            Command::new("unshare")
                .args(["--net", "sleep", "1000"])
                .spawn()
                .unwrap(),
        );
        let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let pid = neighbour.0.id();
        // The command is in its namespace once it has become `sleep`.
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == here
            || std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .unwrap()
                .trim()
                != "sleep"
        {
            std::thread::yield_now();
        }
        ip(&format!("link add {link} type veth peer name eth0 netns {pid}"));
        ip(&format!("addr add {of_node}/24 dev {link}"));
        ip(&format!("link set {link} up"));
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        for arguments in [
            format!("addr add {own}/24 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add default via {of_node}"),
        ] {
            let target = format!("--target={pid}");
            let done = Command::new("nsenter")
                .args([&target, "--net", "ip"])
                .args(arguments.split(' '))
                .status();
            assert!(done.unwrap().success(), "{arguments}");
        }
        neighbour
    }

    fn outside() -> Self {
        Self::new("eth0", OUTSIDE, "192.0.2.1")
    }

    fn netns(&self) -> std::path::PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    /// Asks from there; none when nobody answers in time.
    async fn ask(&self, address: &str) -> Option<String> {
        let (path, address): (_, SocketAddr) = (self.netns(), address.parse().unwrap());
        let asked = tokio::task::spawn_blocking(move || {
            flotilla_network::netns::enter(&path, || {
                let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
                let mut answer = String::new();
                std::io::Read::read_to_string(&mut stream, &mut answer)?;
                Ok(answer)
            })
        });
        asked.await.unwrap().ok()
    }

    /// A pod that answers there as [`Node::pods_answer`] does.
    fn answer(&self, node: &Node, pod: u8) {
        let bind = || {
            let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = flotilla_network::netns::enter(&self.netns(), bind).unwrap();
        node.serve(TcpListener::from_std(listener).unwrap(), pod);
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // It ends by itself after a while if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn outsiders_come_in_by_node_ports_and_external_addresses() {
    on_a_node(|| async {
        let (outsider, pod) = (
            Neighbour::outside(),
            Neighbour::new("pod7", "10.42.7.7", "10.42.7.1"),
        );
        let mut node = Node::start();
        pod.answer(&node, 7);
        let ports = json!([{"name": "web", "port": 80, "nodePort": 30080, "protocol": "TCP"}]);
        let cluster = json!({"type": "NodePort", "ports": ports, "externalIPs": ["198.51.100.77"]});
        node.service(&cluster);
        node.endpoints("TCP", &["10.42.7.7"]).await;
        for entrance in ["192.0.2.1:30080", "198.51.100.77:80", SERVICE] {
            assert_eq!(
                outsider.ask(entrance).await.unwrap(),
                "7 10.42.7.1",
                "{entrance}: masqueraded"
            );
        }
        let mut local = cluster.clone();
        local["externalTrafficPolicy"] = "Local".into();
        node.service(&local);
        node.endpoints("TCP", &["10.42.7.7", "10.42.7.8"]).await;
        node.endpoints("TCP", &["10.42.7.7"]).await;
        for entrance in ["192.0.2.1:30080", "198.51.100.77:80"] {
            let expected = format!("7 {OUTSIDE}");
            let answer = outsider.ask(entrance).await.unwrap();
            assert_eq!(answer, expected, "{entrance}: the client's address is kept");
        }
        node.endpoints("TCP", &[]).await;
        assert_eq!(outsider.ask("198.51.100.77:80").await, None);
        node.stop().await;
    });
}

#[test]
fn only_its_sources_come_in_by_a_balanced_address() {
    on_a_node(|| async {
        let (outsider, pod) = (
            Neighbour::outside(),
            Neighbour::new("pod7", "10.42.7.7", "10.42.7.1"),
        );
        let mut node = Node::start();
        pod.answer(&node, 7);
        let ports = json!([{"name": "web", "port": 80, "nodePort": 30080, "protocol": "TCP"}]);
        for (sources, comes_in) in [
            (json!(null), true),
            (json!(["192.0.2.2/32"]), true),
            (json!(["10.0.0.0/8", "192.0.2.2/31"]), true),
            (json!(["10.0.0.0/8", "192.0.2.4/30"]), false),
            (json!(["fd00::/8"]), false),
            (json!(["0.0.0.0/0"]), true),
        ] {
            let fields = json!({
                "type": "LoadBalancer", "ports": ports, "loadBalancerSourceRanges": sources,
            });
            node.service(&fields);
            node.endpoints("TCP", &["10.42.7.7"]).await;
            let answer = outsider.ask("198.51.100.77:80").await;
            assert_eq!(answer.is_some(), comes_in, "{sources}: {answer:?}");
            let other_entrance = outsider.ask("192.0.2.1:30080").await;
            assert!(other_entrance.is_some(), "node ports are open to all");
        }
        node.stop().await;
    });
}

#[test]
fn a_pod_reaches_itself_and_others_through_a_service() {
    on_a_node(|| async {
        let (one, two) = (
            Neighbour::new("pod7", "10.42.7.7", "10.42.7.1"),
            Neighbour::new("pod8", "10.42.8.8", "10.42.8.1"),
        );
        let mut node = Node::start();
        one.answer(&node, 7);
        node.service(&json!({}));
        node.endpoints("TCP", &["10.42.7.7"]).await;
        assert_eq!(
            one.ask(SERVICE).await.unwrap(),
            "7 10.42.7.1",
            "from itself, by way of the node"
        );
        assert_eq!(
            two.ask(SERVICE).await.unwrap(),
            "7 10.42.8.8",
            "others keep their address"
        );
        assert_eq!(two.ask("10.43.0.5:81").await, None);
        node.stop().await;
    });
}

#[test]
fn health_checks_tell_whether_there_are_endpoints_here() {
    on_a_node(|| async {
        let mut node = Node::start();
        node.service(&json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
        }));
        for (pods, expected) in [(&PODS[..2], "200 OK"), (&[], "503 Service Unavailable")] {
            node.endpoints("TCP", pods).await;
            let answer = async {
                let mut stream = TcpStream::connect("127.0.0.1:32000").await?;
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                std::io::Result::Ok(answer)
            };
            let answer = answer.await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{answer}");
            assert!(
                answer.contains(&format!("\"localEndpoints\": {}", pods.len())),
                "{answer}"
            );
        }
        node.stop().await;
    });
}

#[test]
fn a_table_that_somebody_removed_is_noticed_and_written_anew() {
    on_a_node(|| async {
        let network = Network {
            cluster: (Ipv4Addr::new(10, 42, 0, 0), 16),
            services: (Ipv4Addr::new(10, 43, 0, 0), 16),
        };
        let mut kernel = Kernel::open(network).unwrap();
        assert!(!kernel.is_intact().unwrap());
        kernel.replace(&[]).unwrap();
        assert!(kernel.is_intact().unwrap());
        let mut other = Kernel::open(network).unwrap();
        other.replace(&[]).unwrap();
        assert!(!kernel.is_intact().unwrap(), "another's table");
        other.remove().unwrap();
        assert!(!kernel.is_intact().unwrap());
        let shared = SharedModel::new("this");
        let mut node = Node::start_with(shared.clone());
        node.pods_answer().await;
        node.service(&json!({}));
        node.endpoints("TCP", &PODS[..1]).await;
        kernel.remove().unwrap();
        // The next change finds no table, and brings all of it back.
        node.endpoints("TCP", &PODS[..2]).await;
        assert_eq!(pods_behind(SERVICE, 40).await.len(), 2);
        node.stop().await;
    });
}

#[test]
fn a_balanced_address_is_announced_by_one_ready_node_and_never_if_it_is_a_nodes_own() {
    let announced = |own_addresses: &str, ready: [bool; 3], endpoints_on: &str| {
        let mut found = Vec::new();
        for name in ["n1", "n2", "n3"] {
            let mut model = Model::new(name);
            let service = json!({
                "metadata": {"namespace": "a", "name": "web"},
                "spec": {
                    "type": "LoadBalancer", "clusterIP": "10.43.0.5", "ports": [{"port": 80}],
                    "externalTrafficPolicy": if endpoints_on.is_empty() { "Cluster" } else { "Local" },
                },
                "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.200"}]}},
            });
            model.service(&serde_json::from_value(service).unwrap());
            let slice = json!({
                "metadata": {"namespace": "a", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "ports": [{"port": 80}],
                "endpoints": [{"addresses": ["10.42.0.1"], "nodeName": endpoints_on}],
            });
            model.slice(&serde_json::from_value(slice).unwrap());
            let options = Options {
                node_name: name.into(),
                node_addresses: Vec::new(),
                network: Network {
                    cluster: (Ipv4Addr::new(10, 42, 0, 0), 16),
                    services: (Ipv4Addr::new(10, 43, 0, 0), 16),
                },
            };
            let shared = SharedModel::new(name);
            for (node, is_ready) in ["n1", "n2", "n3"].into_iter().zip(ready) {
                shared.node(node, is_ready, vec![own_addresses.parse().unwrap()]);
            }
            assert!(
                super::announced(&model, &options, &shared.nodes()).is_empty(),
                "not all nodes are known yet"
            );
            shared.nodes_synced();
            found.extend(
                super::announced(&model, &options, &shared.nodes())
                    .iter()
                    .map(|_| name),
            );
        }
        found
    };
    let by_any = announced("10.0.0.1", [true; 3], "");
    assert_eq!(by_any.len(), 1);
    let without = ["n1", "n2", "n3"].map(|name| name != by_any[0]);
    let by_another = announced("10.0.0.1", without, "");
    assert!(by_another.len() == 1 && by_another != by_any);
    assert_eq!(
        announced("10.0.0.1", [true; 3], "n3"),
        ["n3"],
        "clients' addresses are kept"
    );
    assert_eq!(announced("10.0.0.200", [true; 3], ""), [""; 0]);
}
