//! The network of one node, as its agent sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_report::report;
use nix::errno::Errno;
use rtnetlink::Handle;

use crate::allocations::Allocations;
use crate::cidr::Cidr;
use crate::traffic::{self, Traffic};
use crate::way::{self, Overlay, Way};
use crate::{NetworkError, link, masquerade, netns, route, services, sources, tunnel};

/// What a node's network is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Folder where the pods' addresses are kept.
    pub state_dir: PathBuf,
    /// Address of this node that other nodes route to.
    pub node_address: IpAddr,
    /// When packets to other nodes' pods are wrapped.
    pub overlay: Overlay,
    /// Bytes of a pod's packets; worked out from the node's link where it is not given.
    pub mtu: Option<u32>,
}

/// What the control plane decided for this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Addresses of this node's pods, for example `10.42.3.0/24`.
    pub pod_cidr: String,
    /// Addresses of all pods; what leaves them is masqueraded.
    pub cluster_cidr: String,
    /// The address of the cluster's DNS, which every node has; empty where there is none.
    pub cluster_dns: String,
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
    /// Whether the kernel keeps pods to their own addresses.
    keeps_sources: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Configured {
    pods: Cidr,
    bridge_index: u32,
    /// Of the node's link, where the node has the address that it was told.
    link_mtu: Option<u32>,
    is_tunnelled: bool,
}

impl Network {
    /// A network that is not configured yet; reads the addresses given out before.
    pub fn new(options: Options) -> Result<Self, NetworkError> {
        let allocations = Allocations::open(&options.state_dir)?;
        let state = Mutex::new(State {
            allocations,
            configured: None,
            keeps_sources: false,
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

    /// How much came to and went from each pod, by its uid.
    pub fn traffic(&self) -> BTreeMap<String, Traffic> {
        let by_link = traffic::by_link();
        let pods: Vec<String> = self.inner.state().allocations.all().keys().cloned().collect();
        pods.into_iter()
            .filter_map(|uid| Some((*by_link.get(&host_side(&uid))?, uid)))
            .map(|(traffic, uid)| (uid, traffic))
            .collect()
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

    /// Lets this node itself reach the addresses of services. The network must be configured.
    pub async fn route_services(&self, services: &str) -> Result<(), NetworkError> {
        let services = services.parse()?;
        self.blocking(move |inner| inner.route_services(services)).await
    }

    /// The name of the pods' bridge.
    pub fn bridge(&self) -> &str {
        &self.inner.options.bridge
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

/// The first of the requests that were refused; the others were tried all the same.
#[derive(Default)]
struct Refused(Option<NetworkError>);

impl Refused {
    fn note(&mut self, action: &'static str, object: &str, source: rtnetlink::Error) {
        self.0.get_or_insert(NetworkError::Netlink {
            action,
            object: object.to_owned(),
            source,
        });
    }
}

/// Addresses and what the kernel knows of them change together: nothing else may come between.
impl State {
    /// A kernel that cannot do this leaves pods free to name any source.
    fn keep_sources(&mut self) {
        let known = self.allocations.all().iter();
        let known: Vec<_> = known.map(|(uid, address)| (host_side(uid), *address)).collect();
        let kept = sources::install(&known);
        self.keeps_sources = kept.is_ok();
        if let Err(error) = kept {
            tracing::warn!(
                error = report(&error),
                "pods may send under any address: network policies do not hold against forged packets"
            );
        }
    }

    fn assign(&mut self, uid: &str, cidr: Cidr) -> Result<Ipv4Addr, NetworkError> {
        let address = self.allocations.assign(uid, cidr)?;
        if self.keeps_sources {
            sources::add((host_side(uid), address)).map_err(NetworkError::Sources)?;
        }
        Ok(address)
    }

    fn release(&mut self, uid: &str) -> Result<(), NetworkError> {
        let address = self.allocations.all().get(uid).copied();
        if let Some(address) = address.filter(|_| self.keeps_sources) {
            sources::remove((host_side(uid), address)).map_err(NetworkError::Sources)?;
        }
        self.allocations.release(uid)
    }
}

impl Inner {
    fn configure(&self, config: &NodeConfig) -> Result<(), NetworkError> {
        let (pods, cluster) = (config.pod_cidr.parse()?, config.cluster_cidr.parse()?);
        let dns = match config.cluster_dns.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| NetworkError::Dns {
                text: text.to_owned(),
            })?),
        };
        let Options {
            bridge,
            node_address,
            overlay,
            ..
        } = &self.options;
        let (bridge_index, link_mtu, tunnel) = here("create bridge", bridge, async |handle| {
            let index = link::ensure_bridge(&handle, bridge, pods, dns).await?;
            let mtu = link::mtu_of_address(&handle, *node_address).await?;
            Ok((index, mtu, link::index_of(&handle, &tunnel::name(bridge)).await?))
        })?;
        // Pods of one node are behind one link, but each knows only the gateway: nothing may tell them a shorter way.
        for (setting, value) in [
            ("ip_forward", "1"),
            ("conf/all/send_redirects", "0"),
            (&format!("conf/{bridge}/send_redirects"), "0"),
        ] {
            std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value).map_err(|source| {
                NetworkError::System {
                    action: "forward packets from",
                    object: bridge.clone(),
                    source,
                }
            })?;
        }
        masquerade::install(bridge, pods, cluster)?;
        self.state().keep_sources();
        self.state().configured = Some(Configured {
            pods,
            bridge_index,
            link_mtu,
            is_tunnelled: tunnel.is_some() || *overlay == Overlay::Vxlan,
        });
        Ok(())
    }

    fn route_services(&self, range: Cidr) -> Result<(), NetworkError> {
        let configured = self.state().configured.ok_or(NetworkError::NotConfigured)?;
        services::keep_bridges_apart().map_err(|source| NetworkError::System {
            action: "route packets of pods on",
            object: self.options.bridge.clone(),
            source,
        })?;
        here(
            "add the route to services on",
            &self.options.bridge,
            async |handle| {
                services::route(&handle, range, configured.bridge_index, configured.pods.gateway()).await
            },
        )
    }

    fn attach(&self, uid: &str, netns: &Path) -> Result<IpAddr, NetworkError> {
        let (configured, address) = {
            let mut state = self.state();
            let configured = state.configured.ok_or(NetworkError::NotConfigured)?;
            (configured, state.assign(uid, configured.pods)?)
        };
        let namespace = File::open(netns).map_err(|source| NetworkError::System {
            action: "enter the network of pod",
            object: uid.to_owned(),
            source,
        })?;
        let host_side = host_side(uid);
        let mtu = self.pod_mtu(&configured);
        let add = async |handle: &Handle| {
            link::add_pair(
                handle,
                &host_side,
                configured.bridge_index,
                address,
                mtu,
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
        self.state().release(uid)
    }

    fn pod_mtu(&self, configured: &Configured) -> u32 {
        let worked_out = || way::pod_mtu(configured.link_mtu, configured.is_tunnelled);
        self.options.mtu.unwrap_or_else(worked_out)
    }

    fn set_routes(&self, routes: &[Route]) -> Result<(), NetworkError> {
        let mut nodes = BTreeMap::new();
        for route in routes {
            let cidr: Cidr = route.pod_cidr.parse()?;
            match route.address {
                IpAddr::V4(address) if route.address != self.options.node_address => {
                    nodes.insert(cidr, (address, route.node.as_str()));
                }
                _ => {}
            }
        }
        let overlay = self.options.overlay;
        let (present, found) = here("list routes on", "the node", async |handle| {
            let present = route::ours(&handle).await?;
            let mut found = BTreeMap::new();
            for (&cidr, &(address, _)) in &nodes {
                found.insert(cidr, route::find_way(&handle, address, overlay).await);
            }
            Ok((present, found))
        })?;
        let mut refused = Refused::default();
        let mut ways: BTreeMap<Cidr, Option<Way>> = BTreeMap::new();
        for (cidr, way) in found {
            let known = way.map_err(|error| refused.note("find the way to", nodes[&cidr].1, error));
            ways.insert(cidr, known.ok());
        }
        let changes = way::plan(&present, &ways);
        let tunnel = self.set_tunnel(&changes.peers)?;
        here("change routes on", "the node", async |handle| {
            for &(destination, prefix) in &changes.remove {
                if let Err(error) = route::remove(&handle, (destination, prefix)).await {
                    refused.note("remove the route to", &format!("{destination}/{prefix}"), error);
                }
            }
            for &(cidr, way) in &changes.replace {
                if let Err(error) = route::replace(&handle, cidr, way, tunnel).await {
                    refused.note("add the route to", nodes[&cidr].1, error);
                }
            }
            Ok(())
        })?;
        refused.0.map_or(Ok(()), Err)
    }

    /// Makes or removes the tunnel, as there are others at its ends or not.
    fn set_tunnel(&self, peers: &way::Peers) -> Result<Option<u32>, NetworkError> {
        let name = tunnel::name(&self.options.bridge);
        let configured = self.state().configured;
        let Some(mut configured) = configured.filter(|_| !peers.is_empty()) else {
            here("remove the tunnel", &name, async |handle| {
                link::remove(&handle, &name).await
            })?;
            if let Some(configured) = &mut self.state().configured {
                configured.is_tunnelled = self.options.overlay == Overlay::Vxlan;
            }
            return Ok(None);
        };
        configured.is_tunnelled = true;
        let node = match self.options.node_address {
            IpAddr::V4(address) if configured.link_mtu.is_some() => Some(address),
            // The address is not on this machine, as behind a translator; the kernel picks the one that it sends from.
            _ => None,
        };
        let mtu = self.pod_mtu(&configured);
        let index = here("make the tunnel", &name, async |handle| {
            let index = tunnel::ensure(&handle, &name, configured.pods, node, mtu).await?;
            tunnel::set_peers(&handle, index, peers).await?;
            Ok(index)
        })?;
        if let Some(known) = &mut self.state().configured {
            known.is_tunnelled = true;
        }
        Ok(Some(index))
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
        let mut state = self.state();
        state.configured = None;
        if std::mem::take(&mut state.keeps_sources) {
            sources::uninstall().map_err(NetworkError::Sources)?;
        }
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
    format!("{}{:012x}", sources::PREFIX, hash & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests;
