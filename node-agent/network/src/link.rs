//! Links and addresses, one request each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoPortKind, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{
    Error, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::cidr::Cidr;

/// True when the kernel answered with this error number.
pub fn is_errno(error: &Error, errno: nix::errno::Errno) -> bool {
    matches!(error, Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}

/// Index of a link, if it exists.
pub async fn index_of(handle: &Handle, name: &str) -> Result<Option<u32>, Error> {
    match handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_next()
        .await
    {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if is_errno(&error, nix::errno::Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the bridge with its gateway's address and the one of the cluster's DNS, and takes others off it. Returns its
/// index.
pub(crate) async fn ensure_bridge(
    handle: &Handle,
    name: &str,
    cidr: Cidr,
    dns: Option<Ipv4Addr>,
) -> Result<u32, Error> {
    let index = match index_of(handle, name).await? {
        Some(index) => index,
        None => {
            // With a hardware address of its own the bridge keeps it when ports come and go, and pods' caches stay right.
            let bridge = LinkBridge::new(name)
                .address(hardware_address(cidr.gateway()))
                .up()
                .build();
            handle.link().add(bridge).execute().await?;
            index_of(handle, name).await?.ok_or(Error::RequestFailed)?
        }
    };
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await?;
    let mut wanted = BTreeMap::from([(cidr.gateway(), cidr.prefix())]);
    // A local address: pods reach it over their default route, whatever becomes of the services' rules.
    wanted.extend(dns.map(|dns| (dns, 32)));
    keep_addresses(handle, index, wanted).await?;
    Ok(index)
}

/// Gives a link exactly these addresses.
pub(crate) async fn keep_addresses(
    handle: &Handle,
    index: u32,
    mut missing: BTreeMap<Ipv4Addr, u8>,
) -> Result<(), Error> {
    let mut addresses = handle.address().get().set_link_index_filter(index).execute();
    while let Some(message) = addresses.try_next().await? {
        match local_address(&message) {
            Some(IpAddr::V4(address)) if missing.get(&address) == Some(&message.header.prefix_len) => {
                missing.remove(&address);
            }
            Some(IpAddr::V4(_)) => handle.address().del(message).execute().await?,
            _ => {}
        }
    }
    for (address, prefix) in missing {
        add_address(handle, index, address, prefix).await?;
    }
    Ok(())
}

fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    })
}

/// Bytes that a packet may have on the link with this address; none when no link has it.
pub(crate) async fn mtu_of_address(handle: &Handle, address: IpAddr) -> Result<Option<u32>, Error> {
    let mut addresses = handle.address().get().set_address_filter(address).execute();
    let Some(found) = addresses.try_next().await? else {
        return Ok(None);
    };
    let mut links = handle.link().get().match_index(found.header.index).execute();
    let link = links.try_next().await?;
    Ok(link.and_then(|link| {
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
    }))
}

/// Makes a pod's pair: the host side on the bridge, the other one as `eth0` in the pod's namespace.
///
/// The port is isolated: what a pod sends goes through the node's IP stack even when the other pod is on the same
/// bridge, so that services' answers find their way back and network policies see every packet. The bridge takes the
/// smallest MTU of its ports by itself.
pub(crate) async fn add_pair(
    handle: &Handle,
    host_side: &str,
    bridge: u32,
    address: Ipv4Addr,
    mtu: u32,
    netns: BorrowedFd<'_>,
) -> Result<(), Error> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name("eth0")
        .address(hardware_address(address))
        .mtu(mtu)
        .setns_by_fd(netns.as_raw_fd())
        .build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(host_side)
        .controller(bridge)
        .mtu(mtu)
        .up()
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    handle.link().add(pair).execute().await?;
    let port = LinkMessageBuilder::<LinkBridgePort>::default()
        .name(host_side)
        .set_port_kind(InfoPortKind::Bridge)
        .isolated(true)
        .build();
    handle.link().set(port).execute().await
}

/// Configures `eth0` and `lo` from inside the pod's namespace.
pub(crate) async fn configure_pod(handle: &Handle, address: Ipv4Addr, cidr: Cidr) -> Result<(), Error> {
    let eth0 = index_of(handle, "eth0").await?.ok_or(Error::RequestFailed)?;
    let lo = index_of(handle, "lo").await?.ok_or(Error::RequestFailed)?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(lo).up().build())
        .execute()
        .await?;
    // Nothing but the gateway is on the link: all that a pod sends is routed.
    add_address(handle, eth0, address, 32).await?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(eth0).up().build())
        .execute()
        .await?;
    let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(cidr.gateway(), 32)
        .output_interface(eth0)
        .scope(RouteScope::Link)
        .build();
    handle.route().add(gateway).replace().execute().await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(cidr.gateway())
        .output_interface(eth0)
        .build();
    handle.route().add(default).replace().execute().await
}

/// Removes a link; an absent one is no error.
pub async fn remove(handle: &Handle, name: &str) -> Result<(), Error> {
    let Some(index) = index_of(handle, name).await? else {
        return Ok(());
    };
    match handle.link().del(index).execute().await {
        Err(error) if is_errno(&error, nix::errno::Errno::ENODEV) => Ok(()),
        removed => removed,
    }
}

async fn add_address(handle: &Handle, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
    handle
        .address()
        .add(index, address.into(), prefix)
        .replace()
        .execute()
        .await
}

/// A hardware address that follows from the IP address: whoever gets the address next has the same, so that no
/// neighbour's cache is wrong.
pub(crate) fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    [&[0x0a, 0x58], &address.octets()[..]].concat()
}
