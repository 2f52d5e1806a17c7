//! Connections to ports inside pods.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// A loopback port that is served answers at once; one behind a packet filter never does.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Why there is no connection to a pod's port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectPortError {
    /// The pod's network is not there (any more).
    #[error("the pod has no sandbox on this node")]
    NoSandbox,
    /// Nobody answers there.
    #[error("nothing accepts connections on 127.0.0.1:{port} or [::1]:{port} in the pod")]
    Connect { port: u16, source: io::Error },
    /// The agent is shutting down.
    #[error("the attempt was cut short")]
    Cancelled,
}

/// Connects to `port` on the loopback addresses of the network namespace behind `netns`, IPv4 first.
pub(crate) fn connect(netns: &Path, port: u16) -> io::Result<TcpStream> {
    flotilla_network::netns::enter(netns, || {
        let to = |address: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_LIMIT);
        // What went wrong with IPv4 tells more: most pods have no IPv6 at all.
        to(Ipv4Addr::LOCALHOST.into()).or_else(|first| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| first))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_only_listens_on_ipv6_is_found() {
        let own = Path::new("/proc/self/ns/net");
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(connect(own, port).is_ok());
        drop(listener);
        let refused = connect(own, port).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
