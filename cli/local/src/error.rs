//! What can go wrong with a cluster on this machine.

use std::io;
use std::path::{Path, PathBuf};

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Namespaces and cgroups need root.
    #[error("flotilla local needs root: run it with sudo")]
    NotRoot,
    /// The name would not do as a file name.
    #[error("{0:?} cannot name a cluster: use up to 40 lower-case letters, digits and '-'")]
    Name(String),
    /// There is one already.
    #[error(
        "cluster {name:?} exists already: see `flotilla local status`, or remove it with `flotilla local down`"
    )]
    Exists {
        /// Its name.
        name: String,
    },
    /// There is none.
    #[error("there is no cluster {name:?}: start it with `flotilla local up`")]
    Absent {
        /// The name.
        name: String,
    },
    /// The cluster has no such node.
    #[error("there is no node {node:?}; the nodes are {known}")]
    UnknownNode {
        /// What was asked for.
        node: String,
        /// What there is.
        known: String,
    },
    /// Too few or too many nodes.
    #[error("a local cluster has 1 to {servers_max} servers and at most {nodes_max} nodes")]
    Size {
        /// The limit of servers.
        servers_max: usize,
        /// The limit of nodes.
        nodes_max: usize,
    },
    /// A node's process runs already.
    #[error("{node} runs already")]
    Running {
        /// The node.
        node: String,
    },
    /// A node has no process.
    #[error("{node} does not run: start it with `flotilla local start {node}`")]
    NotRunning {
        /// The node.
        node: String,
    },
    /// A node's process ended before the cluster was up.
    #[error("{node} ended while the cluster was starting; the end of its log:\n{log}")]
    NodeEnded {
        /// The node.
        node: String,
        /// The last lines of its log.
        log: String,
    },
    /// A node did not come up in time.
    #[error("{node} was not up within {seconds} s; the end of its log:\n{log}")]
    NodeLate {
        /// The node.
        node: String,
        /// How long was waited.
        seconds: u64,
        /// The last lines of its log.
        log: String,
    },
    /// The caller's own wait for readiness failed.
    #[error("{0}")]
    NotReady(String),
    /// Groups of a partition overlap or are too few.
    #[error(
        "a partition has at least two groups and no node in two of them, for example server-1|server-2,server-3, or server-1>server-2,server-3 if only one direction is to be cut"
    )]
    Groups,
    /// The program that sets packet filters is absent or refused.
    #[error("cannot set the packet filter: {0} (is Debian's package nftables installed?)")]
    Filter(String),
    /// The supervisor process did not do what it was asked for.
    #[error("the supervisor of the cluster failed: {0}")]
    Supervisor(String),
    /// The kernel refused a network request.
    #[error("cannot {action} {object}")]
    Network {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// A file, namespace or process could not be had.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Adds what was tried on which file.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, LocalError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, LocalError> {
        self.map_err(|source| LocalError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

/// So often another cluster may be in the way: each time it has to go in the very moment.
const ATTEMPTS_MAX: u32 = 1000;

/// Begins anew while what all clusters share is taken away half-way by the last one that goes.
pub(crate) fn unless_taken_away<T>(mut work: impl FnMut() -> Result<T, LocalError>) -> Result<T, LocalError> {
    for _ in 1..ATTEMPTS_MAX {
        match work() {
            Err(LocalError::Io { source, .. }) if is_gone(&source) => {}
            done => return done,
        }
    }
    work()
}

/// An open file of a cgroup that was removed has no device.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}
