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

/// Where bridged packets are handed to the rules of the IP stack, if the kernel can do that.
const BRIDGED_PACKETS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Keeps packets between ports of a bridge out of the IP stack's rules in this network namespace.
///
/// Otherwise a pod's packet to a service is turned towards its endpoint while it is still on the bridge, which then
/// sends it straight to that port, or drops it if it is the one it came from, instead of letting the node route it.
pub(crate) fn keep_bridges_apart() -> std::io::Result<()> {
    match std::fs::read_to_string(BRIDGED_PACKETS) {
        Ok(setting) if setting.trim() != "0" => {
            tracing::info!(
                setting = BRIDGED_PACKETS,
                "switched off: pods' packets are routed, not bridged"
            );
            std::fs::write(BRIDGED_PACKETS, "0")
        }
        // Already off, or a kernel without it.
        _ => Ok(()),
    }
}

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
