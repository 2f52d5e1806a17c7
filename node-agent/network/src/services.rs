//! The way to services for this node itself.
//!
//! A node without a default route would not even try an address of a service. The route leads to the pods' bridge, so
//! that connections come from the node's address there, which pods on all nodes can answer; where they go is decided
//! by the services' rules before anything is sent.

use std::net::Ipv4Addr;

use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::{Error, Handle, RouteMessageBuilder};

use crate::cidr::Cidr;

/// Marks the route apart from those to other nodes.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(174);

/// Adds the route, or corrects it.
pub(crate) async fn route(handle: &Handle, services: Cidr, bridge: u32, own: Ipv4Addr) -> Result<(), Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(services.network(), services.prefix())
        .output_interface(bridge)
        .pref_source(own)
        .scope(RouteScope::Link)
        .protocol(PROTOCOL)
        .build();
    handle.route().add(route).replace().execute().await
}
