//! Routes to other nodes' pods, one request each.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use futures::TryStreamExt;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use crate::cidr::Cidr;
use crate::link::is_errno;
use crate::way::{Overlay, Way};

/// Marks our routes among the kernel's, the administrator's and other daemons'.
const OUR_PROTOCOL: RouteProtocol = RouteProtocol::Other(173);

/// Destination, and gateway where there is one.
pub(crate) type Routes = BTreeMap<(Ipv4Addr, u8), Option<Ipv4Addr>>;

/// Our routes as the kernel has them.
pub(crate) async fn ours(handle: &Handle) -> Result<Routes, Error> {
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

/// Adds the route to another node's pods, or turns it.
pub(crate) async fn replace(handle: &Handle, cidr: Cidr, way: Way, tunnel: Option<u32>) -> Result<(), Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(cidr.network(), cidr.prefix())
        .gateway(way.gateway(cidr))
        .protocol(OUR_PROTOCOL);
    let route = match (way, tunnel) {
        (Way::Tunnel(_), Some(tunnel)) => route.output_interface(tunnel).onlink(),
        _ => route,
    };
    handle.route().add(route.build()).replace().execute().await
}

/// How the packets for another node's pods get there: as they are where its address is on one of this node's links.
pub(crate) async fn find_way(handle: &Handle, node: Ipv4Addr, overlay: Overlay) -> Result<Way, Error> {
    let question = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(node, 32)
        .build();
    let mut answers = handle.route().get(question).execute();
    let answer = answers.try_next().await?.ok_or(Error::RequestFailed)?;
    let is_behind_router = answer
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)));
    Ok(match overlay {
        Overlay::Auto if is_behind_router => Way::Tunnel(node),
        Overlay::Auto | Overlay::Direct => Way::Direct(node),
        Overlay::Vxlan => Way::Tunnel(node),
    })
}

/// Removes one of our routes.
pub(crate) async fn remove(handle: &Handle, (destination, prefix): (Ipv4Addr, u8)) -> Result<(), Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination, prefix)
        .protocol(OUR_PROTOCOL);
    match handle.route().del(route.build()).execute().await {
        Err(error) if is_errno(&error, nix::errno::Errno::ESRCH) => Ok(()),
        removed => removed,
    }
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
