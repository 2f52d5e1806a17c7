//! The network between the nodes: a bridge in a namespace of its own, and a cable to every node.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use flotilla_network::link::{index_of, remove};
use flotilla_network::netns;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::error::At;
use crate::state::Node;
use crate::{LocalError, Place};

/// The switch's namespace among those of the nodes.
pub(crate) const NAME: &str = "switch";
const BRIDGE: &str = "switch";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
const PREFIX: u8 = 24;
/// The first node's address is one above this.
const NODES_FROM: u8 = 10;

/// The address of the node at this place in the cluster's list.
pub(crate) fn address(at: usize) -> Ipv4Addr {
    let [a, b, c, _] = ADDRESS.octets();
    Ipv4Addr::new(
        a,
        b,
        c,
        u8::try_from(at).unwrap_or(u8::MAX).saturating_add(NODES_FROM + 1),
    )
}

/// The file of the switch's network namespace.
pub(crate) fn namespace(place: &Place) -> PathBuf {
    place.pins(NAME).join("net")
}

/// Makes the bridge inside the switch's namespace.
pub(crate) fn create(place: &Place) -> Result<(), LocalError> {
    inside(
        &namespace(place),
        "create the switch of",
        place.name(),
        async |handle| {
            handle
                .link()
                .add(LinkBridge::new(BRIDGE).up().build())
                .execute()
                .await?;
            configure(&handle, BRIDGE, ADDRESS).await
        },
    )
}

/// Connects a node: a pair of links, one end on the bridge and named after the node, the other its `eth0`.
pub(crate) fn connect(place: &Place, node: &Node) -> Result<(), LocalError> {
    let node_namespace = place.pins(&node.name).join("net");
    let file = File::open(&node_namespace).at("open", &node_namespace)?;
    inside(&namespace(place), "connect", &node.name, async |handle| {
        let bridge = index_of(&handle, BRIDGE).await?.ok_or(Error::RequestFailed)?;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .address(hardware_address(node.address))
            .setns_by_fd(file.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(&node.name)
            .controller(bridge)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        handle.link().add(pair).execute().await
    })?;
    inside(
        &node_namespace,
        "give an address to",
        &node.name,
        async |handle| {
            configure(&handle, "eth0", node.address).await?;
            // Addresses of services need a way out before they are rewritten.
            let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(ADDRESS).build();
            handle.route().add(default).replace().execute().await
        },
    )
}

/// Pulls a node's cable out for good. Without this its port would stay for a moment after its namespace is gone.
pub(crate) fn disconnect(place: &Place, node: &str) -> Result<(), LocalError> {
    inside(&namespace(place), "disconnect", node, async |handle| {
        remove(&handle, node).await
    })
}

/// A machine keeps its hardware address when it is started again, so that its neighbours' caches stay right.
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    [&[0x0a, 0x59], &address.octets()[..]].concat()
}

async fn configure(handle: &Handle, link: &str, address: Ipv4Addr) -> Result<(), Error> {
    for name in ["lo", link] {
        let index = index_of(handle, name).await?.ok_or(Error::RequestFailed)?;
        if name == link {
            handle
                .address()
                .add(index, address.into(), PREFIX)
                .replace()
                .execute()
                .await?;
        }
        handle
            .link()
            .set(LinkUnspec::new_with_index(index).up().build())
            .execute()
            .await?;
    }
    Ok(())
}

fn inside(
    namespace: &std::path::Path,
    action: &'static str,
    object: &str,
    work: impl AsyncFnOnce(Handle) -> Result<(), Error> + Send,
) -> Result<(), LocalError> {
    let answer = netns::netlink(Some(namespace), work).at("enter", namespace)?;
    answer.map_err(|source| LocalError::Network {
        action,
        object: object.to_owned(),
        source,
    })
}
