//! Links, addresses and routes, one request each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoPortKind, InfoVeth};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{
    Error, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::cidr::Cidr;

/// Marks our routes among the kernel's, the administrator's and other daemons'.
const OUR_PROTOCOL: RouteProtocol = RouteProtocol::Other(173);

/// Destination, and gateway where there is one.
pub(crate) type Routes = BTreeMap<(Ipv4Addr, u8), Option<Ipv4Addr>>;

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

/// Makes the bridge with its address, and takes other addresses off it. Returns its index.
pub(crate) async fn ensure_bridge(handle: &Handle, name: &str, cidr: Cidr) -> Result<u32, Error> {
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
    let mut present = false;
    let mut addresses = handle.address().get().set_link_index_filter(index).execute();
    while let Some(message) = addresses.try_next().await? {
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        match local {
            Some(address) if address == cidr.gateway() && message.header.prefix_len == cidr.prefix() => {
                present = true
            }
            Some(_) => handle.address().del(message).execute().await?,
            None => {}
        }
    }
    if !present {
        add_address(handle, index, cidr.gateway(), cidr.prefix()).await?;
    }
    Ok(index)
}

/// Makes a pod's pair: the host side on the bridge, the other one as `eth0` in the pod's namespace.
pub(crate) async fn add_pair(
    handle: &Handle,
    host_side: &str,
    bridge: u32,
    address: Ipv4Addr,
    netns: BorrowedFd<'_>,
) -> Result<(), Error> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name("eth0")
        .address(hardware_address(address))
        .setns_by_fd(netns.as_raw_fd())
        .build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(host_side)
        .controller(bridge)
        .up()
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    handle.link().add(pair).execute().await?;
    // A pod that reaches itself through a service address needs its packets back on the same port.
    let port = LinkMessageBuilder::<LinkBridgePort>::default()
        .name(host_side)
        .set_port_kind(InfoPortKind::Bridge)
        .hairpin(true)
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
    add_address(handle, eth0, address, cidr.prefix()).await?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(eth0).up().build())
        .execute()
        .await?;
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

/// Our routes as the kernel has them.
pub(crate) async fn our_routes(handle: &Handle) -> Result<Routes, Error> {
    let mut ours = Routes::new();
    let mut routes = handle
        .route()
        .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
        .execute();
    while let Some(route) = routes.try_next().await? {
        if route.header.protocol == OUR_PROTOCOL
            && let Some((destination, gateway)) = describe(&route)
        {
            ours.insert((destination, route.header.destination_prefix_length), gateway);
        }
    }
    Ok(ours)
}

/// Adds a route to another node's pods, or points it at another address.
pub(crate) async fn replace_route(handle: &Handle, cidr: Cidr, gateway: Ipv4Addr) -> Result<(), Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(cidr.network(), cidr.prefix())
        .gateway(gateway)
        .protocol(OUR_PROTOCOL)
        .build();
    handle.route().add(route).replace().execute().await
}

/// Removes one of our routes.
pub(crate) async fn remove_route(
    handle: &Handle,
    (destination, prefix): (Ipv4Addr, u8),
) -> Result<(), Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination, prefix)
        .protocol(OUR_PROTOCOL);
    match handle.route().del(route.build()).execute().await {
        Err(error) if is_errno(&error, nix::errno::Errno::ESRCH) => Ok(()),
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

fn describe(route: &RouteMessage) -> Option<(Ipv4Addr, Option<Ipv4Addr>)> {
    let address = |wanted: &RouteAddress| match wanted {
        RouteAddress::Inet(address) => Some(*address),
        _ => None,
    };
    let mut destination = None;
    let mut gateway = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(found) => destination = address(found),
            RouteAttribute::Gateway(found) => gateway = address(found),
            _ => {}
        }
    }
    destination.map(|destination| (destination, gateway))
}

/// A hardware address that follows from the IP address: whoever gets the address next has the same, so that no
/// neighbour's cache is wrong.
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    [&[0x0a, 0x58], &address.octets()[..]].concat()
}
