//! Why the network could not be changed.

use std::io;
use std::path::PathBuf;

/// Why the network could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No pod CIDR is known yet.
    #[error("the node has no pod CIDR yet")]
    NotConfigured,
    /// Not a range of IPv4 addresses.
    #[error("{text:?} is not an IPv4 address range such as 10.42.3.0/24")]
    Cidr {
        /// What was given.
        text: String,
    },
    /// Not an address that nodes can have.
    #[error("the cluster's DNS address {text:?} is not an IPv4 address such as 10.43.0.10")]
    Dns {
        /// What was given.
        text: String,
    },
    /// Every address of the range is taken.
    #[error("no address is free in {cidr}")]
    Full {
        /// The range.
        cidr: String,
    },
    /// A pod's uid is not a file name.
    #[error("{uid:?} is not a pod uid")]
    PodUid {
        /// What was given.
        uid: String,
    },
    /// A file of the state folder could not be read or written.
    #[error("cannot access {path}")]
    State {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("cannot {action} {object}")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// On which link, pod or route.
        object: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// A thread, a namespace or a socket could not be had.
    #[error("cannot {action} {object}")]
    System {
        /// What was tried.
        action: &'static str,
        /// On which link, pod or route.
        object: String,
        /// What the system said.
        source: io::Error,
    },
    /// The nftables table was refused.
    #[error("cannot change the rules that hide pods behind their node")]
    Masquerade(#[source] flotilla_nftables::NetlinkError),
    /// What a pod may send under which address could not be told.
    #[error("cannot keep pods to their own addresses")]
    Sources(#[source] flotilla_nftables::NetlinkError),
}
