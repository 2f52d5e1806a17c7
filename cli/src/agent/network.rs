//! What an operator may choose about a node's network.

use flotilla_agent::{NetworkOptions, Overlay};

/// Flags about the network of a node.
#[derive(Debug, clap::Args)]
pub(super) struct NetworkArgs {
    /// When packets to other nodes' pods are wrapped in VXLAN.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Wrap::Auto)]
    overlay: Wrap,
    /// Bytes of a pod's packets; by default as many as the node's link takes, less 50 where they are wrapped.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(576..=65535))]
    mtu: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Wrap {
    /// Where a router is between the nodes.
    Auto,
    /// Never: the network between the nodes knows the way to their pods.
    Direct,
    /// Always: the network between the nodes lets only their own addresses pass.
    Vxlan,
}

impl NetworkArgs {
    pub(super) fn options(&self) -> NetworkOptions {
        NetworkOptions {
            overlay: match self.overlay {
                Wrap::Auto => Overlay::Auto,
                Wrap::Direct => Overlay::Direct,
                Wrap::Vxlan => Overlay::Vxlan,
            },
            mtu: self.mtu,
        }
    }
}
