//! Nodes with routers between them, which know nothing of pods.

use std::net::{Ipv4Addr, UdpSocket};

use super::*;

/// A namespace that passes packets on.
fn router() -> Namespace {
    let router = Namespace::new();
    router.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    router
}

fn default_route(namespace: &Namespace, gateway: [u8; 4]) {
    netns::netlink(Some(&namespace.path()), async |handle| {
        let route = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway.into());
        handle.route().add(route.build()).execute().await
    })
    .unwrap()
    .unwrap();
}

/// Two nodes on links of their own, and two routers on the way.
struct Apart {
    left: Node,
    right: Node,
    _routers: [Namespace; 2],
}

impl Apart {
    fn new() -> Self {
        let (left, right) = (
            Node::new("192.168.7.1", "10.42.1.0/24"),
            Node::new("192.168.8.1", "10.42.2.0/24"),
        );
        let (near, far) = (router(), router());
        cable(
            (&left.namespace, "uplink", [192, 168, 7, 1]),
            (&near, "left", [192, 168, 7, 254]),
        );
        cable(
            (&near, "middle", [172, 20, 0, 1]),
            (&far, "middle", [172, 20, 0, 2]),
        );
        cable(
            (&far, "right", [192, 168, 8, 254]),
            (&right.namespace, "uplink", [192, 168, 8, 1]),
        );
        default_route(&left.namespace, [192, 168, 7, 254]);
        default_route(&near, [172, 20, 0, 2]);
        default_route(&far, [172, 20, 0, 1]);
        default_route(&right.namespace, [192, 168, 8, 254]);
        // The nodes had no link when they were made.
        left.run(async |network| network.configure(config("10.42.1.0/24")).await.unwrap());
        right.run(async |network| network.configure(config("10.42.2.0/24")).await.unwrap());
        let apart = Self {
            left,
            right,
            _routers: [near, far],
        };
        apart.know_each_other();
        apart
    }

    fn know_each_other(&self) {
        let routes = [
            route("left", "10.42.1.0/24", "192.168.7.1"),
            route("right", "10.42.2.0/24", "192.168.8.1"),
        ];
        for node in [&self.left, &self.right] {
            node.run(async |network| network.set_routes(routes.to_vec()).await.unwrap());
        }
    }
}

fn mtu(namespace: &Namespace, link: &str) -> u32 {
    netns::netlink(Some(&namespace.path()), async |handle| {
        use futures::TryStreamExt;
        let mut links = handle.link().get().match_name(link.to_owned()).execute();
        let found = links.try_next().await?.unwrap();
        Ok(found.attributes.iter().find_map(|attribute| match attribute {
            rtnetlink::packet_route::link::LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        }))
    })
    .unwrap()
    .unwrap()
    .unwrap()
}

#[test]
fn pods_behind_routers_reach_each_other_with_their_own_addresses() {
    let nodes = Apart::new();
    let (a, b) = (Namespace::new(), Namespace::new());
    let (address_a, address_b) = (nodes.left.attach("uid-a", &a), nodes.right.attach("uid-b", &b));
    assert_eq!(a.greet(&b, address_b), address_a);
    assert_eq!(b.greet(&a, address_a), address_b);
    assert_eq!(
        nodes.left.namespace.greet(&b, address_b).to_string(),
        "10.42.1.0",
        "a node speaks as its end of the tunnel"
    );
    assert_eq!(our_routes(&nodes.left), ["10.42.2.0/24 via 10.42.2.0"]);
}

#[test]
fn packets_as_large_as_the_link_of_a_pod_pass_the_tunnel_whole() {
    let nodes = Apart::new();
    let (a, b) = (Namespace::new(), Namespace::new());
    let (_, address_b) = (nodes.left.attach("uid-a", &a), nodes.right.attach("uid-b", &b));
    assert_eq!(mtu(&a, "eth0"), 1450);
    assert_eq!(mtu(&nodes.left.namespace, "flt0"), 1450);
    assert_eq!(mtu(&nodes.left.namespace, "flt0-vx"), 1450);
    let server = b.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let client = a.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let payload = vec![7; 1450 - 28];
    let port = server.local_addr().unwrap().port();
    client.send_to(&payload, (address_b, port)).unwrap();
    let mut received = vec![0; 2000];
    assert_eq!(server.recv(&mut received).unwrap(), payload.len());
}

#[test]
fn a_tunnel_goes_with_its_last_node_and_follows_an_address() {
    let nodes = Apart::new();
    let left = &nodes.left;
    left.run(async |network| network.set_routes(Vec::new()).await.unwrap());
    assert!(our_routes(left).is_empty());
    assert!(!left.namespace.links().contains(&"flt0-vx".to_owned()));
    let moved = [route("right", "10.42.2.0/24", "192.168.9.9")];
    left.run(async |network| network.set_routes(moved.to_vec()).await.unwrap());
    nodes.know_each_other();
    nodes.know_each_other();
    let (a, b) = (Namespace::new(), Namespace::new());
    let (address_a, address_b) = (left.attach("uid-a", &a), nodes.right.attach("uid-b", &b));
    assert_eq!(a.greet(&b, address_b), address_a);
}

#[test]
fn an_overlay_can_be_wanted_on_one_link_too() {
    let wrapped = |address: &str, pods: &str| {
        let state = tempfile::tempdir().unwrap();
        let options = Options {
            overlay: Overlay::Vxlan,
            ..options(&state, address)
        };
        let node = Node {
            namespace: Namespace::new(),
            network: Network::new(options).unwrap(),
            _state: state,
        };
        node.run(async |network| network.configure(config(pods)).await.unwrap());
        node
    };
    let (left, right) = (
        wrapped("192.168.7.1", "10.42.1.0/24"),
        wrapped("192.168.7.2", "10.42.2.0/24"),
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
    assert_eq!(a.greet(&b, address_b), address_a);
    assert_eq!(our_routes(&left), ["10.42.2.0/24 via 10.42.2.0"]);
}
