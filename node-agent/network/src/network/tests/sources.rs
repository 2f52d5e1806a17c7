//! Pods that send under addresses that are not theirs.

use std::net::UdpSocket;
use std::process::Command;

use super::*;

const GATEWAY: &str = "10.42.1.1";

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

/// What gets through has so long; what is dropped is given up sooner.
const PATIENCE: Duration = Duration::from_secs(10);
const BLOCKED: Duration = Duration::from_millis(300);

fn arrives(node: &Node, pod: &Namespace, from: IpAddr) {
    assert_eq!(send(node, pod, from, PATIENCE), Some(from));
}

/// Sends a datagram to the node from this address; returns who it is from, if it arrives.
fn send(node: &Node, pod: &Namespace, from: IpAddr, limit: Duration) -> Option<IpAddr> {
    let server = node.namespace.run(|| UdpSocket::bind((GATEWAY, 0)).unwrap());
    server.set_read_timeout(Some(limit)).unwrap();
    let target = server.local_addr().unwrap();
    pod.run(|| {
        let client = UdpSocket::bind((from, 0)).unwrap();
        // Where nobody tells the gateway's hardware address, the kernel may say so at once.
        let _ = client.send_to(b"ahoy", target);
    });
    let received = server.recv_from(&mut [0; 4]).ok()?;
    Some(received.1.ip())
}

#[test]
fn a_pod_sends_under_its_own_address_only() {
    let node = Node::new("192.168.7.1", "10.42.1.0/24");
    let (pod, other) = (Namespace::new(), Namespace::new());
    let own = node.attach("uid-a", &pod);
    let victim = node.attach("uid-b", &other);
    arrives(&node, &pod, own);
    for forged in [victim, "10.42.1.200".parse().unwrap(), "8.8.8.8".parse().unwrap()] {
        pod.run(|| ip(&format!("addr add {forged}/32 dev eth0")));
        assert_eq!(send(&node, &pod, forged, BLOCKED), None, "{forged}");
        // Asked for the gateway's hardware address in that name, the node must not take the pod for its owner.
        pod.run(|| ip("neigh flush dev eth0"));
        assert_eq!(send(&node, &pod, forged, BLOCKED), None, "{forged}");
        let known = node.namespace.run(|| ip("neigh show dev flt0"));
        assert!(!known.contains(&format!("{forged} ")), "{known}");
    }
    arrives(&node, &other, victim);
}

#[test]
fn what_an_earlier_agent_gave_out_still_counts_and_what_is_given_back_does_not() {
    let node = Node::new("192.168.7.1", "10.42.1.0/24");
    let pod = Namespace::new();
    let own = node.attach("uid-a", &pod);
    let again = Network::new(options(&node._state, "192.168.7.1")).unwrap();
    node.namespace.block_on(async || {
        again.configure(config("10.42.1.0/24")).await.unwrap();
    });
    arrives(&node, &pod, own);
    let sources = || {
        let listed = Command::new("nft")
            .args(["list", "set", "bridge", "flotilla_sources", "sources"])
            .output();
        String::from_utf8(listed.unwrap().stdout).unwrap()
    };
    assert!(node.namespace.run(sources).contains(&own.to_string()));
    node.namespace
        .block_on(async || again.detach("uid-a").await.unwrap());
    assert!(!node.namespace.run(sources).contains(&own.to_string()));
}
