//! Keys, certificates, join tokens and TLS settings of one cluster.
//!
//! Every server holds the cluster's certificate authority and issues its own serving certificate at each start, so
//! that a server may come back under another address. Inside the cluster servers are verified by the one name
//! [`SERVER_NAME`], never by address. Nothing here talks to the store or decides what a caller may do.

mod ca;
mod fetch;
mod files;
mod identity;
mod tls;
mod token;

pub use ca::{ClusterCa, IssueError, Subject};
pub use fetch::{FetchCaError, fetch_ca};
pub use files::{create_private_folder, write_private};
pub use identity::{CertificateRequest, IDENTITY_FILE, Identity, IdentityError, PeerIdentity};
pub use tls::{ClientTls, TlsError, channel, server_tls};
pub use token::{JoinToken, ParseTokenError};

/// The name under which every server's certificate is valid inside the cluster.
pub const SERVER_NAME: &str = "flotilla-server";

/// The organization (group) of administrators, as Kubernetes has it.
pub const GROUP_MASTERS: &str = "system:masters";

/// The organization (group) of nodes; the common name is `system:node:<node name>`.
pub const GROUP_NODES: &str = "system:nodes";

/// The organization (group) of control-plane replicas.
pub const GROUP_SERVERS: &str = "flotilla.dev:servers";

/// Fills `bytes` from the operating system's random source.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes);
    bytes
}
