//! Announces addresses of load balancers to the network of this node.
//!
//! Answers ARP questions for addresses that this node is to receive, without giving them to an interface: they stay
//! addresses of services and nothing else. A new address is also told unasked, so that neighbours who knew it on
//! another node come here at once. Which node announces an address is [`chosen`]'s decision, the same on every node.

use std::collections::BTreeSet;
use std::io::{IoSlice, IoSliceMut};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use flotilla_report::report;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, bind, recvmsg, sendmsg};
use rustix::net::{AddressFamily, SocketFlags, SocketType, eth, socket_with};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Told unasked so often, one pause apart: the first may be lost.
const TELL_TIMES: u32 = 3;
const TELL_PAUSE: Duration = Duration::from_millis(300);
/// Between looks at the interfaces while there is something to announce.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

const ETHERNET_HEADER: usize = 14;
const FRAME: usize = ETHERNET_HEADER + 28;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Ethernet and IPv4, and their addresses' lengths.
const ARP_HEAD: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];
const BROADCAST: [u8; 6] = [0xff; 6];

/// Why addresses cannot be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The interfaces cannot be listed.
    #[error("cannot list the interfaces of this node")]
    Interfaces(#[source] Errno),
    /// No socket can be had on the interface.
    #[error("cannot listen for ARP on {interface}")]
    Socket {
        /// Its name.
        interface: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The node that announces an address: each node weighs all of them alike, so they agree without talking, and the loss
/// of one moves only its own addresses.
pub(crate) fn chosen<'a>(address: Ipv4Addr, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let weight = |node: &&str| {
        let bytes = node.bytes().chain([0]).chain(address.octets());
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, step);
        // The last bytes, which are all that differs, must reach every bit.
        (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    nodes.into_iter().max_by_key(|node| (weight(node), *node))
}

/// Announces whatever addresses it is told to.
#[derive(Debug)]
pub struct Announcer {
    addresses: watch::Receiver<BTreeSet<Ipv4Addr>>,
    /// Interfaces that are not on the nodes' network, such as the pods' bridge.
    not_on: String,
}

impl Announcer {
    /// Announces the newest of these sets; not on the interface of this name.
    pub fn new(addresses: watch::Receiver<BTreeSet<Ipv4Addr>>, not_on: &str) -> Self {
        Self {
            addresses,
            not_on: not_on.to_owned(),
        }
    }

    /// Runs until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut told = BTreeSet::new();
        loop {
            let wanted = self.addresses.borrow_and_update().clone();
            let fresh: BTreeSet<Ipv4Addr> = wanted.difference(&told).copied().collect();
            // Every arm may be dropped anywhere: questions that are missed are asked again.
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.addresses.changed() => if changed.is_err() { return },
                () = announce(&wanted, &fresh, &self.not_on), if !wanted.is_empty() => {}
            }
            told = wanted;
        }
    }
}

/// Tells the fresh ones, then answers for all, for a while.
async fn announce(wanted: &BTreeSet<Ipv4Addr>, fresh: &BTreeSet<Ipv4Addr>, not_on: &str) {
    let ports = match Port::open_all(wanted, not_on) {
        Ok(ports) => ports,
        Err(error) => {
            tracing::error!(error = report(&error), "balanced addresses are not announced");
            Vec::new()
        }
    };
    let tell = async {
        for _ in 0..if fresh.is_empty() { 0 } else { TELL_TIMES } {
            for port in &ports {
                port.tell(fresh);
            }
            tokio::time::sleep(TELL_PAUSE).await;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let answer = futures::future::join_all(ports.iter().map(|port| port.answer(wanted)));
    // The interfaces are looked at again after this: questions meanwhile wait in nobody's queue and are asked again.
    tokio::select! {
        () = tell => {}
        _ = answer, if !ports.is_empty() => {}
    }
}

/// ARP on one interface.
struct Port {
    socket: AsyncFd<OwnedFd>,
    link: LinkAddr,
    hardware: [u8; 6],
    networks: Vec<(Ipv4Addr, Ipv4Addr)>,
}

impl Port {
    /// On every interface whose network has one of the addresses.
    fn open_all(wanted: &BTreeSet<Ipv4Addr>, not_on: &str) -> Result<Vec<Self>, AnnounceError> {
        let all: Vec<_> = getifaddrs().map_err(AnnounceError::Interfaces)?.collect();
        let mut ports = Vec::new();
        for interface in all.iter().filter(|interface| interface.interface_name != not_on) {
            let Some(link) = interface
                .address
                .as_ref()
                .and_then(|address| address.as_link_addr())
            else {
                continue;
            };
            let own = all
                .iter()
                .filter(|other| other.interface_name == interface.interface_name);
            let networks: Vec<_> = own.filter_map(network_of).collect();
            let has = |address: &Ipv4Addr| networks.iter().any(|network| is_in(*address, *network));
            let Some(hardware) = link.addr().filter(|hardware| *hardware != [0; 6]) else {
                continue;
            };
            if wanted.iter().any(has) {
                let failed = |source: std::io::Error| AnnounceError::Socket {
                    interface: interface.interface_name.clone(),
                    source,
                };
                ports.push(Self {
                    socket: open(link).map_err(failed)?,
                    link: *link,
                    hardware,
                    networks,
                });
            }
        }
        Ok(ports)
    }

    fn tell(&self, addresses: &BTreeSet<Ipv4Addr>) {
        let here = |address: &&Ipv4Addr| self.networks.iter().any(|network| is_in(**address, *network));
        for address in addresses.iter().filter(here) {
            self.send(&unasked(self.hardware, *address));
        }
    }

    async fn answer(&self, wanted: &BTreeSet<Ipv4Addr>) {
        loop {
            let Ok(mut guard) = self.socket.readable().await else {
                return;
            };
            let mut frame = [0; 128];
            let received = guard.try_io(|socket| {
                let mut parts = [IoSliceMut::new(&mut frame)];
                let received =
                    recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT);
                received
                    .map(|message| message.bytes)
                    .map_err(std::io::Error::from)
            });
            match received {
                Ok(Ok(length)) => {
                    if let Some(reply) = reply_to(&frame[..length], self.hardware, wanted) {
                        self.send(&reply);
                    }
                }
                // The interface may be gone; the next look at the interfaces tells.
                Ok(Err(_)) => return,
                // Nothing there after all.
                Err(_) => {}
            }
        }
    }

    /// What is lost is asked for again.
    fn send(&self, frame: &[u8; FRAME]) {
        let sent = sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(frame)],
            &[],
            MsgFlags::MSG_DONTWAIT,
            Some(&self.link),
        );
        if let Err(errno) = sent {
            tracing::debug!(%errno, "an ARP message was not sent");
        }
    }
}

fn open(link: &LinkAddr) -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(eth::ARP))?;
    bind(socket.as_raw_fd(), link)?;
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; this socket is owned by the AsyncFd and never exchanged"
    )]
    AsyncFd::with_interest(socket, tokio::io::Interest::READABLE)
}

fn network_of(interface: &nix::ifaddrs::InterfaceAddress) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let address = interface.address.as_ref()?.as_sockaddr_in()?.ip();
    let mask = interface.netmask.as_ref()?.as_sockaddr_in()?.ip();
    Some((address, mask))
}

fn is_in(address: Ipv4Addr, (own, mask): (Ipv4Addr, Ipv4Addr)) -> bool {
    address & mask == own & mask
}

/// "This address is here", to everybody.
fn unasked(hardware: [u8; 6], address: Ipv4Addr) -> [u8; FRAME] {
    frame(
        BROADCAST,
        hardware,
        REQUEST,
        (hardware, address),
        ([0; 6], address),
    )
}

/// The answer to a question for one of the addresses.
fn reply_to(question: &[u8], hardware: [u8; 6], wanted: &BTreeSet<Ipv4Addr>) -> Option<[u8; FRAME]> {
    let arp = question.get(ETHERNET_HEADER..FRAME)?;
    let is_question = question[12..14] == ETHERTYPE_ARP && arp[..6] == ARP_HEAD && arp[6..8] == REQUEST;
    let asker: [u8; 6] = arp[8..14].try_into().ok()?;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(&arp[at..at + 4]).ok()?));
    let (asker_address, asked) = (address(14)?, address(24)?);
    // Another node that tells the same unasked is no question.
    (is_question && wanted.contains(&asked) && asker_address != asked)
        .then(|| frame(asker, hardware, REPLY, (hardware, asked), (asker, asker_address)))
}

fn frame(
    to: [u8; 6],
    from: [u8; 6],
    operation: [u8; 2],
    (sender, sender_address): ([u8; 6], Ipv4Addr),
    (target, target_address): ([u8; 6], Ipv4Addr),
) -> [u8; FRAME] {
    let parts: [&[u8]; 9] = [
        &to,
        &from,
        &ETHERTYPE_ARP,
        &ARP_HEAD,
        &operation,
        &sender,
        &sender_address.octets(),
        &target,
        &target_address.octets(),
    ];
    let mut frame = [0; FRAME];
    let mut at = 0;
    for part in parts {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn question(asked: &str) -> [u8; FRAME] {
        let sender = (OTHER, "10.0.0.9".parse().unwrap());
        frame(
            BROADCAST,
            OTHER,
            REQUEST,
            sender,
            ([0; 6], asked.parse().unwrap()),
        )
    }

    #[test]
    fn only_questions_for_announced_addresses_are_answered() {
        let address: Ipv4Addr = "10.0.0.200".parse().unwrap();
        let wanted = BTreeSet::from([address]);
        let answer = reply_to(&question("10.0.0.200"), OWN, &wanted).unwrap();
        let expected = frame(
            OTHER,
            OWN,
            REPLY,
            (OWN, address),
            (OTHER, "10.0.0.9".parse().unwrap()),
        );
        assert_eq!(answer, expected);
        assert_eq!(reply_to(&question("10.0.0.201"), OWN, &wanted), None);
        assert_eq!(reply_to(&answer, OWN, &wanted), None, "an answer is no question");
        assert_eq!(reply_to(&unasked(OTHER, address), OWN, &wanted), None);
        assert_eq!(reply_to(&question("10.0.0.200")[..20], OWN, &wanted), None);
    }

    #[test]
    fn the_loss_of_a_node_moves_only_its_own_addresses() {
        let nodes = ["a", "b", "c", "d"];
        let addresses: Vec<Ipv4Addr> = (0..200).map(|host| Ipv4Addr::new(10, 0, 0, host)).collect();
        let mut counts = std::collections::BTreeMap::new();
        for address in &addresses {
            let before = chosen(*address, nodes).unwrap();
            *counts.entry(before).or_insert(0) += 1;
            let after = chosen(*address, nodes.into_iter().filter(|node| *node != "b")).unwrap();
            assert!(before == "b" || before == after);
        }
        assert!(
            counts.len() == 4 && counts.values().all(|count| *count > 20),
            "{counts:?}"
        );
        assert_eq!(chosen(addresses[0], []), None);
    }
}
