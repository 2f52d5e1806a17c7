//! What an operator may choose about the proxy for Ingresses.

use flotilla_agent::IngressOptions;

/// Flags about a node's proxy.
#[derive(Debug, clap::Args)]
pub(super) struct IngressArgs {
    /// Port at which this node serves Ingresses over HTTP, once there are any; 0: not at all.
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    ingress_http_port: u16,
    /// Port at which this node serves Ingresses over HTTPS, once there are any; 0: not at all.
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    ingress_https_port: u16,
    /// Serves no Ingresses on this node.
    #[arg(long)]
    disable_ingress: bool,
}

impl IngressArgs {
    pub(super) fn options(&self) -> IngressOptions {
        let port = |port: u16| (port != 0 && !self.disable_ingress).then_some(port);
        IngressOptions {
            http_port: port(self.ingress_http_port),
            https_port: port(self.ingress_https_port),
        }
    }
}
