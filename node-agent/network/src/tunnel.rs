//! The VXLAN link to nodes that are behind a router, and who is at its other ends.
//!
//! Nobody learns or asks: hardware addresses follow from the addresses inside, so every end is entered by hand.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Error, Handle, LinkUnspec, LinkVxlan};

use crate::cidr::Cidr;
use crate::link::{self, hardware_address, index_of, is_errno};
use crate::way::Peers;

/// Linux' own port for VXLAN, which flannel uses as well.
const PORT: u16 = 8472;
/// Tells this network from others on the same port.
const NETWORK_ID: u32 = 0x66_6c_74;
/// Bytes of a link's name.
const NAME_MAX: usize = 15;

/// The tunnel's name beside the bridge's.
pub(crate) fn name(bridge: &str) -> String {
    const SUFFIX: &str = "-vx";
    let stem: String = bridge.chars().take(NAME_MAX - SUFFIX.len()).collect();
    stem + SUFFIX
}

/// Makes the link, or brings it in line with the node's addresses. Returns its index.
pub(crate) async fn ensure(
    handle: &Handle,
    name: &str,
    pods: Cidr,
    node: Option<Ipv4Addr>,
    mtu: u32,
) -> Result<u32, Error> {
    let index = match index_of(handle, name).await? {
        Some(index) => index,
        None => {
            let mut link = LinkVxlan::new(name, NETWORK_ID).port(PORT).learning(false);
            if let Some(node) = node {
                link = link.local(node);
            }
            handle.link().add(link.build()).execute().await?;
            index_of(handle, name).await?.ok_or(Error::RequestFailed)?
        }
    };
    let inside = pods.network();
    let set = LinkUnspec::new_with_index(index)
        .address(hardware_address(inside))
        .mtu(mtu)
        .up();
    handle.link().set(set.build()).execute().await?;
    link::keep_addresses(handle, index, [(inside, 32)].into()).await?;
    Ok(index)
}

/// Enters these ends and strikes all others.
pub(crate) async fn set_peers(handle: &Handle, index: u32, peers: &Peers) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    for message in entries(handle, index).await? {
        match peer_of(&message) {
            Some((hardware, address)) if is_current(peers, &hardware, address) => {
                known.insert((hardware, address));
            }
            Some(_) => match handle.neighbours().del(message).execute().await {
                Err(error) if is_errno(&error, Errno::ENOENT) => {}
                removed => removed?,
            },
            None => {}
        }
    }
    for (hardware, &(inside, node)) in peers {
        if !known.contains(&(hardware.clone(), inside)) {
            let neighbour = handle.neighbours().add(index, inside.into());
            neighbour.link_layer_address(hardware).replace().execute().await?;
        }
        if !known.contains(&(hardware.clone(), node)) {
            let forward = handle.neighbours().add_bridge(index, hardware);
            forward
                .destination(IpAddr::V4(node))
                .state(NeighbourState::Permanent)
                .flags(NeighbourFlags::Own)
                .replace()
                .execute()
                .await?;
        }
    }
    Ok(())
}

/// What is entered on the link: neighbours, and where frames for a hardware address go.
async fn entries(handle: &Handle, index: u32) -> Result<Vec<NeighbourMessage>, Error> {
    let neighbours = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet)
        .execute();
    let forwards = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Bridge)
        .execute();
    let mut all: Vec<NeighbourMessage> = neighbours.try_collect().await?;
    all.extend(forwards.try_collect::<Vec<_>>().await?);
    all.retain(|message| message.header.ifindex == index);
    Ok(all)
}

/// Hardware address, and the address it stands beside: inside for a neighbour, the node's for a forward.
fn peer_of(message: &NeighbourMessage) -> Option<(Vec<u8>, Ipv4Addr)> {
    let mut hardware = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(found) => hardware = Some(found.clone()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(*found),
            _ => {}
        }
    }
    Some((hardware?, address?))
}

fn is_current(peers: &Peers, hardware: &[u8], address: Ipv4Addr) -> bool {
    peers
        .get(hardware)
        .is_some_and(|&(inside, node)| address == inside || address == node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_fits_whatever_the_bridge_is_called() {
        assert_eq!(name("flt0"), "flt0-vx");
        assert_eq!(name("fifteen-letters").len(), NAME_MAX);
    }
}
