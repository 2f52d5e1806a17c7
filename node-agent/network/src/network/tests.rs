//! Nodes and pods in network namespaces of their own, talking to each other.

mod masquerade;
mod sources;
mod tunnels;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rtnetlink::{LinkUnspec, LinkVeth};

use super::*;

/// A network namespace that lives as long as this value; the machine's own is never touched.
struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::enter(&self.path(), || Ok(work())).unwrap()
    }

    /// Runs the network's own async interface, in a runtime whose threads are all inside.
    fn block_on<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(work())
        })
    }

    fn links(&self) -> Vec<String> {
        self.run(|| {
            let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            table
                .lines()
                .skip(2)
                .map(|line| line.split(':').next().unwrap().trim().to_owned())
                .collect()
        })
    }

    /// Sends a greeting to a server in another namespace and returns who it came from.
    fn greet(&self, server: &Namespace, address: IpAddr) -> IpAddr {
        let listener = server.run(|| TcpListener::bind("0.0.0.0:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let mut client =
            self.run(|| TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(5)).unwrap());
        client.write_all(b"ahoy").unwrap();
        let (mut accepted, from) = listener.accept().unwrap();
        let mut greeting = [0; 4];
        accepted.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"ahoy");
        from.ip()
    }
}

struct Node {
    namespace: Namespace,
    network: Network,
    _state: tempfile::TempDir,
}

impl Node {
    fn new(address: &str, pod_cidr: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let network = Network::new(options(&state, address)).unwrap();
        let node = Self {
            namespace: Namespace::new(),
            network,
            _state: state,
        };
        node.run(async |network| network.configure(config(pod_cidr)).await.unwrap());
        node
    }

    fn run<T: Send>(&self, work: impl AsyncFnOnce(&Network) -> T + Send) -> T {
        self.namespace.block_on(async || work(&self.network).await)
    }

    fn attach(&self, uid: &str, pod: &Namespace) -> IpAddr {
        let path = pod.path();
        self.run(async |network| network.attach(uid, &path).await.unwrap())
    }
}

fn options(state: &tempfile::TempDir, address: &str) -> Options {
    Options {
        bridge: "flt0".into(),
        state_dir: state.path().join("network"),
        node_address: address.parse().unwrap(),
        overlay: Overlay::Auto,
        mtu: None,
    }
}

fn config(pod_cidr: &str) -> NodeConfig {
    NodeConfig {
        pod_cidr: pod_cidr.into(),
        cluster_cidr: "10.42.0.0/16".into(),
        cluster_dns: "10.43.0.10".into(),
    }
}

fn route(node: &str, pod_cidr: &str, address: &str) -> Route {
    Route {
        node: node.into(),
        pod_cidr: pod_cidr.into(),
        address: address.parse().unwrap(),
    }
}

/// Joins two nodes by a cable and gives each its address.
fn join(a: (&Node, [u8; 4]), b: (&Node, [u8; 4])) {
    cable((&a.0.namespace, "uplink", a.1), (&b.0.namespace, "uplink", b.1));
}

/// A link with this name and address in each of two namespaces.
fn cable(a: (&Namespace, &'static str, [u8; 4]), b: (&Namespace, &'static str, [u8; 4])) {
    let other = b.0.0.as_raw_fd();
    netns::netlink(Some(&a.0.path()), async |handle| {
        handle
            .link()
            .add(LinkVeth::new(a.1, "far").build())
            .execute()
            .await?;
        let far = link::index_of(&handle, "far").await?.unwrap();
        let moved = LinkUnspec::new_with_index(far)
            .name(b.1)
            .setns_by_fd(other)
            .build();
        handle.link().set(moved).execute().await
    })
    .unwrap()
    .unwrap();
    for (namespace, name, address) in [a, b] {
        netns::netlink(Some(&namespace.path()), async |handle| {
            let index = link::index_of(&handle, name).await?.unwrap();
            handle.address().add(index, address.into(), 24).execute().await?;
            handle
                .link()
                .set(LinkUnspec::new_with_index(index).up().build())
                .execute()
                .await
        })
        .unwrap()
        .unwrap();
    }
}

fn our_routes(node: &Node) -> Vec<String> {
    let routes = netns::netlink(Some(&node.namespace.path()), async |handle| {
        route::ours(&handle).await
    });
    let routes = routes.unwrap().unwrap();
    routes
        .iter()
        .map(|((to, prefix), via)| format!("{to}/{prefix} via {}", via.unwrap()))
        .collect()
}

#[test]
fn pods_of_one_node_reach_each_other_the_node_and_themselves() {
    let node = Node::new("192.168.7.1", "10.42.3.0/24");
    let (a, b) = (Namespace::new(), Namespace::new());
    let (address_a, address_b) = (node.attach("uid-a", &a), node.attach("uid-b", &b));
    assert_eq!(address_a.to_string(), "10.42.3.2");
    assert_eq!(a.greet(&b, address_b), address_a);
    assert_eq!(a.greet(&a, address_a), address_a);
    assert_eq!(a.greet(&a, "127.0.0.1".parse().unwrap()).to_string(), "127.0.0.1");
    assert_eq!(node.namespace.greet(&b, address_b).to_string(), "10.42.3.1");
    assert_eq!(a.greet(&node.namespace, "10.42.3.1".parse().unwrap()), address_a);
    assert_eq!(a.links(), ["lo", "eth0"]);
    let dns = "10.43.0.10".parse().unwrap();
    assert_eq!(a.greet(&node.namespace, dns), address_a, "the node answers names");
}

#[test]
fn pods_of_one_node_are_neighbours_of_the_node_only() {
    let node = Node::new("192.168.7.1", "10.42.3.0/24");
    let (a, b) = (Namespace::new(), Namespace::new());
    let (_, address_b) = (node.attach("uid-a", &a), node.attach("uid-b", &b));
    a.greet(&b, address_b);
    let neighbours = a.run(|| fs::read_to_string("/proc/thread-self/net/arp").unwrap());
    let known: Vec<&str> = neighbours
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(known, ["10.42.3.1"]);
}

#[test]
fn attach_and_detach_can_be_repeated_and_survive_a_restart() {
    let node = Node::new("192.168.7.1", "10.42.3.0/24");
    let (pod, other) = (Namespace::new(), Namespace::new());
    let address = node.attach("uid-a", &pod);
    assert_eq!(node.attach("uid-a", &pod), address);
    let again = Network::new(options(&node._state, "192.168.7.1")).unwrap();
    assert_eq!(again.addresses(), BTreeMap::from([("uid-a".to_owned(), address)]));
    let path = pod.path();
    node.namespace.block_on(async || {
        let refused = again.attach("uid-a", &path).await;
        assert!(matches!(refused, Err(NetworkError::NotConfigured)));
        again.configure(config("10.42.3.0/24")).await.unwrap();
        assert_eq!(again.attach("uid-a", &path).await.unwrap(), address);
        again.detach("uid-a").await.unwrap();
        again.detach("uid-a").await.unwrap();
        assert!(again.addresses().is_empty());
    });
    assert_eq!(pod.links(), ["lo"]);
    assert_ne!(
        node.attach("uid-b", &other),
        address,
        "an address rests before it is given out again"
    );
}

#[test]
fn many_pods_attach_at_once_each_in_a_few_milliseconds() {
    let node = Node::new("192.168.7.1", "10.42.3.0/24");
    let pods: Vec<Namespace> = (0..20).map(|_| Namespace::new()).collect();
    let started = Instant::now();
    node.run(async |network| {
        let attach = pods.iter().enumerate().map(|(at, pod)| {
            let path = pod.path();
            async move { network.attach(&format!("uid-{at}"), &path).await.unwrap() }
        });
        let addresses: std::collections::BTreeSet<IpAddr> =
            futures::future::join_all(attach).await.into_iter().collect();
        assert_eq!(addresses.len(), 20);
    });
    println!("attach: {:?} each", started.elapsed() / 20);
    assert_eq!(
        pods[0].greet(&pods[19], node.network.addresses()["uid-19"]),
        node.network.addresses()["uid-0"]
    );
}

#[test]
fn pods_of_different_nodes_reach_each_other_by_routes() {
    let (left, right) = (
        Node::new("192.168.7.1", "10.42.1.0/24"),
        Node::new("192.168.7.2", "10.42.2.0/24"),
    );
    join((&left, [192, 168, 7, 1]), (&right, [192, 168, 7, 2]));
    let routes = [
        route("left", "10.42.1.0/24", "192.168.7.1"),
        route("right", "10.42.2.0/24", "192.168.7.2"),
    ];
    for node in [&left, &right] {
        node.run(async |network| network.set_routes(routes.to_vec()).await.unwrap());
    }
    let (a, b) = (Namespace::new(), Namespace::new());
    let (address_a, address_b) = (left.attach("uid-a", &a), right.attach("uid-b", &b));
    assert_eq!(
        a.greet(&b, address_b),
        address_a,
        "pods see each other's own addresses"
    );
    assert_eq!(
        our_routes(&left),
        ["10.42.2.0/24 via 192.168.7.2"],
        "no route to itself"
    );
}

#[test]
fn routes_follow_the_nodes_and_those_of_others_stay() {
    let (left, right) = (
        Node::new("192.168.7.1", "10.42.1.0/24"),
        Node::new("192.168.7.2", "10.42.2.0/24"),
    );
    join((&left, [192, 168, 7, 1]), (&right, [192, 168, 7, 2]));
    let set = |routes: &[Route]| left.run(async |network| network.set_routes(routes.to_vec()).await);
    netns::netlink(Some(&left.namespace.path()), async |handle| {
        let foreign = rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix([10, 77, 0, 0].into(), 16)
            .gateway([192, 168, 7, 2].into());
        handle.route().add(foreign.build()).execute().await
    })
    .unwrap()
    .unwrap();
    set(&[
        route("b", "10.42.2.0/24", "192.168.7.2"),
        route("c", "10.42.3.0/24", "192.168.7.3"),
    ])
    .unwrap();
    assert_eq!(
        our_routes(&left),
        ["10.42.2.0/24 via 192.168.7.2", "10.42.3.0/24 via 192.168.7.3"]
    );
    set(&[route("b", "10.42.2.0/24", "192.168.7.9")]).unwrap();
    assert_eq!(
        our_routes(&left),
        ["10.42.2.0/24 via 192.168.7.9"],
        "the node came back with another address"
    );
    let error = set(&[
        route("far", "10.42.5.0/24", "172.16.0.1"),
        route("near", "10.42.6.0/24", "192.168.7.6"),
    ]);
    assert!(error.is_err());
    assert_eq!(
        our_routes(&left),
        ["10.42.6.0/24 via 192.168.7.6"],
        "one bad route does not keep the others away"
    );
    set(&[]).unwrap();
    assert!(our_routes(&left).is_empty());
    let table = left
        .namespace
        .run(|| fs::read_to_string("/proc/thread-self/net/route").unwrap());
    assert!(
        table.contains("00004D0A"),
        "the administrator's route to 10.77.0.0 stays:\n{table}"
    );
}

#[test]
fn another_pod_cidr_moves_the_bridge() {
    let node = Node::new("192.168.7.1", "10.42.3.0/24");
    node.run(async |network| network.configure(config("10.42.9.0/24")).await.unwrap());
    let pod = Namespace::new();
    assert_eq!(node.attach("uid-a", &pod).to_string(), "10.42.9.2");
    assert_eq!(
        node.namespace
            .greet(&pod, "10.42.9.2".parse().unwrap())
            .to_string(),
        "10.42.9.1"
    );
}

#[test]
fn teardown_leaves_nothing() {
    let node = Node::new("192.168.7.1", "10.42.3.0/24");
    let pods = [Namespace::new(), Namespace::new()];
    pods.iter()
        .enumerate()
        .for_each(|(at, pod)| assert!(node.attach(&format!("uid-{at}"), pod).is_ipv4()));
    node.run(async |network| network.teardown().await.unwrap());
    assert_eq!(node.namespace.links(), ["lo"]);
    assert!(node.network.addresses().is_empty());
    assert_eq!(
        fs::read_dir(node._state.path().join("network")).unwrap().count(),
        0
    );
    node.run(async |network| network.teardown().await.unwrap());
}

#[test]
fn a_pod_without_a_namespace_is_a_clear_error() {
    let node = Node::new("192.168.7.1", "10.42.3.0/24");
    let error = node.run(async |network| network.attach("uid-a", Path::new("/nowhere")).await.unwrap_err());
    assert_eq!(error.to_string(), "cannot enter the network of pod uid-a");
    let error = node.run(async |network| network.configure(config("fd00::/64")).await.unwrap_err());
    assert_eq!(
        error.to_string(),
        "\"fd00::/64\" is not an IPv4 address range such as 10.42.3.0/24"
    );
}

#[test]
fn pods_look_like_their_node_to_what_is_outside_the_cluster() {
    let (node, outside) = (
        Node::new("192.168.7.1", "10.42.1.0/24"),
        Node::new("192.168.7.2", "10.9.0.0/24"),
    );
    join((&node, [192, 168, 7, 1]), (&outside, [192, 168, 7, 2]));
    let pod = Namespace::new();
    node.attach("uid-a", &pod);
    assert_eq!(
        pod.greet(&outside.namespace, "192.168.7.2".parse().unwrap())
            .to_string(),
        "192.168.7.1"
    );
    let tables = || {
        let list = || {
            std::process::Command::new("nft")
                .args(["list", "tables"])
                .output()
                .unwrap()
                .stdout
        };
        String::from_utf8(node.namespace.run(list)).unwrap()
    };
    assert_eq!(
        tables(),
        "table ip flotilla_flt0\ntable bridge flotilla_sources\n"
    );
    node.run(async |network| network.teardown().await.unwrap());
    assert_eq!(tables(), "");
}

#[test]
fn names_of_links_fit_and_differ() {
    assert_eq!(host_side("6f1c5ad4-9d0e-4a3f-8a57-0f8a6f6e2c11").len(), 15);
    assert_ne!(host_side("a"), host_side("b"));
}
