//! The network of one node, as its agent sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use rtnetlink::Handle;

use crate::allocations::Allocations;
use crate::cidr::Cidr;
use crate::{link, masquerade, netns};

/// What a node's network is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Folder where the pods' addresses are kept.
    pub state_dir: PathBuf,
    /// Address of this node that other nodes route to.
    pub node_address: IpAddr,
}

/// What the control plane decided for this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Addresses of this node's pods, for example `10.42.3.0/24`.
    pub pod_cidr: String,
    /// Addresses of all pods; what leaves them is masqueraded.
    pub cluster_cidr: String,
}

/// The way to another node's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Name of the other node, for messages.
    pub node: String,
    /// Its pods' addresses.
    pub pod_cidr: String,
    /// The node's own address.
    pub address: IpAddr,
}

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
    #[error("cannot change the masquerade rules: {message}")]
    Masquerade {
        /// What nft said.
        message: String,
    },
}

/// The network of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    allocations: Allocations,
    configured: Option<Configured>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Configured {
    pods: Cidr,
    cluster: Cidr,
    bridge_index: u32,
}

impl Network {
    /// A network that is not configured yet; reads the addresses given out before.
    pub fn new(options: Options) -> Result<Self, NetworkError> {
        let allocations = Allocations::open(&options.state_dir)?;
        let state = Mutex::new(State {
            allocations,
            configured: None,
        });
        Ok(Self {
            inner: Arc::new(Inner { options, state }),
        })
    }

    /// Makes the bridge, forwarding and masquerade. Idempotent.
    pub async fn configure(&self, config: NodeConfig) -> Result<(), NetworkError> {
        self.blocking(move |inner| inner.configure(&config)).await
    }

    /// Gives the pod an address on `eth0` of its network namespace. Idempotent.
    pub async fn attach(&self, pod_uid: &str, netns: &Path) -> Result<IpAddr, NetworkError> {
        let (uid, netns) = (pod_uid.to_owned(), netns.to_owned());
        self.blocking(move |inner| inner.attach(&uid, &netns)).await
    }

    /// Takes the pod's link and address away. Unknown pods are no error.
    pub async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        let uid = pod_uid.to_owned();
        self.blocking(move |inner| inner.detach(&uid)).await
    }

    /// Replaces the routes to other nodes by these. One that is refused does not keep the others away.
    pub async fn set_routes(&self, routes: Vec<Route>) -> Result<(), NetworkError> {
        self.blocking(move |inner| inner.set_routes(&routes)).await
    }

    /// Addresses given out, by pod uid.
    pub fn addresses(&self) -> BTreeMap<String, IpAddr> {
        let state = self.inner.state();
        state
            .allocations
            .all()
            .iter()
            .map(|(uid, &address)| (uid.clone(), address.into()))
            .collect()
    }

    /// Removes every link, route and rule that this network made, and forgets all addresses.
    pub async fn teardown(&self) -> Result<(), NetworkError> {
        self.blocking(Inner::teardown).await
    }

    /// Netlink requests wait for the kernel's one network lock, so they have threads of their own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(NetworkError::NotConfigured),
            },
        }
    }
}

impl Inner {
    fn configure(&self, config: &NodeConfig) -> Result<(), NetworkError> {
        let (pods, cluster) = (config.pod_cidr.parse()?, config.cluster_cidr.parse()?);
        let bridge = &self.options.bridge;
        let bridge_index = here("create bridge", bridge, async |handle| {
            link::ensure_bridge(&handle, bridge, pods).await
        })?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(|source| NetworkError::System {
            action: "forward packets from",
            object: bridge.clone(),
            source,
        })?;
        masquerade::install(bridge, pods, cluster)?;
        self.state().configured = Some(Configured {
            pods,
            cluster,
            bridge_index,
        });
        Ok(())
    }

    fn attach(&self, uid: &str, netns: &Path) -> Result<IpAddr, NetworkError> {
        let (configured, address) = {
            let mut state = self.state();
            let configured = state.configured.ok_or(NetworkError::NotConfigured)?;
            (configured, state.allocations.assign(uid, configured.pods)?)
        };
        let namespace = File::open(netns).map_err(|source| NetworkError::System {
            action: "enter the network of pod",
            object: uid.to_owned(),
            source,
        })?;
        let host_side = host_side(uid);
        let add = async |handle: &Handle| {
            link::add_pair(
                handle,
                &host_side,
                configured.bridge_index,
                address,
                namespace.as_fd(),
            )
            .await
        };
        here("attach pod", uid, async |handle| match add(&handle).await {
            // Attached before: made anew, because the pod may be another one of the same uid by now.
            Err(error) if link::is_errno(&error, Errno::EEXIST) => {
                link::remove(&handle, &host_side).await?;
                add(&handle).await
            }
            added => added,
        })?;
        inside(netns, "configure the network of pod", uid, async |handle| {
            link::configure_pod(&handle, address, configured.pods).await
        })?;
        Ok(address.into())
    }

    fn detach(&self, uid: &str) -> Result<(), NetworkError> {
        if !self.state().allocations.all().contains_key(uid) {
            return Ok(());
        }
        let host_side = host_side(uid);
        here("detach pod", uid, async |handle| {
            link::remove(&handle, &host_side).await
        })?;
        self.state().allocations.release(uid)
    }

    fn set_routes(&self, routes: &[Route]) -> Result<(), NetworkError> {
        let mut wanted = BTreeMap::new();
        for route in routes {
            let cidr: Cidr = route.pod_cidr.parse()?;
            match route.address {
                IpAddr::V4(address) if route.address != self.options.node_address => {
                    wanted.insert(cidr, (address, &route.node));
                }
                _ => {}
            }
        }
        let present = here("list routes on", "the node", async |handle| {
            link::our_routes(&handle).await
        })?;
        for &(destination, prefix) in present.keys() {
            if !wanted
                .keys()
                .any(|cidr| (cidr.network(), cidr.prefix()) == (destination, prefix))
            {
                here(
                    "remove the route to",
                    &format!("{destination}/{prefix}"),
                    async |handle| link::remove_route(&handle, (destination, prefix)).await,
                )?;
            }
        }
        let mut first_error = None;
        for (cidr, (gateway, node)) in wanted {
            if present.get(&(cidr.network(), cidr.prefix())) == Some(&Some(gateway)) {
                continue;
            }
            let added = here("add the route to", node, async |handle| {
                link::replace_route(&handle, cidr, gateway).await
            });
            if let Err(error) = added {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn teardown(&self) -> Result<(), NetworkError> {
        let pods: Vec<String> = self.state().allocations.all().keys().cloned().collect();
        for uid in pods {
            self.detach(&uid)?;
        }
        self.set_routes(&[])?;
        let bridge = &self.options.bridge;
        here("remove bridge", bridge, async |handle| {
            link::remove(&handle, bridge).await
        })?;
        self.state().configured = None;
        masquerade::remove(bridge)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn here<T: Send>(
    action: &'static str,
    object: &str,
    work: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send,
) -> Result<T, NetworkError> {
    explain(action, object, netns::netlink(None, work))
}

fn inside<T: Send>(
    netns: &Path,
    action: &'static str,
    object: &str,
    work: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send,
) -> Result<T, NetworkError> {
    explain(action, object, netns::netlink(Some(netns), work))
}

fn explain<T>(
    action: &'static str,
    object: &str,
    answer: io::Result<Result<T, rtnetlink::Error>>,
) -> Result<T, NetworkError> {
    let object = object.to_owned();
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(NetworkError::Netlink {
            action,
            object,
            source,
        }),
        Err(source) => Err(NetworkError::System {
            action,
            object,
            source,
        }),
    }
}

/// Name of the pod's link on the node: 15 bytes at most, the same in every version of this program (FNV-1a).
fn host_side(uid: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    format!("pod{:012x}", hash & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests;
