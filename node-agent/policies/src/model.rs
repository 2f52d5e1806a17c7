//! Policies, namespaces and pods as far as they matter here, in little memory. Pure.
//!
//! Pods of the cluster are peers; those of this node are told apart, by whoever starts them, because they are isolated
//! before anybody else hears of them.

mod intern;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self, Namespace};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::Protocol;
use crate::policy::Policy;
use crate::profile::{Profile, profile};
use crate::program::{Changes, Program};
use intern::Interner;

pub(crate) type Labels = BTreeMap<String, String>;
type Name = (Box<str>, Box<str>);

/// Where the cluster's DNS is thought to live, and its labels there: policies everywhere name it so. Each node answers
/// names itself, and there is no such pod.
const DNS_NAMESPACE: &str = "kube-system";
const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
const DNS_PORT: u16 = 53;

/// A pod that has an address of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: Arc<str>,
    pub(crate) labels: Arc<Labels>,
    pub(crate) ports: Arc<[NamedPort]>,
    pub(crate) address: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NamedPort {
    pub(crate) name: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

impl Pod {
    /// The numbers of the ports of that name.
    pub(crate) fn ports_named(&self, protocol: Protocol, name: &str) -> impl Iterator<Item = u16> {
        self.ports
            .iter()
            .filter(move |port| port.protocol == protocol && *port.name == *name)
            .map(|port| port.number)
    }
}

/// What a node has heard, and what that comes to.
#[derive(Debug, Default)]
pub struct Model {
    policies: HashMap<Arc<str>, BTreeMap<Box<str>, Policy>>,
    peers: Peers,
    /// Whose profile is to be worked out anew.
    dirty: BTreeSet<Box<str>>,
    dns: Option<Ipv4Addr>,
    program: Program,
    names: Interner<str>,
    labels: Interner<Labels>,
    ports: Interner<[NamedPort]>,
}

/// All pods that rules may name, and their namespaces' labels.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) namespaces: HashMap<Box<str>, Labels>,
    pods: HashMap<Name, Pod>,
    /// Pods of this node by uid, known here before the cluster knows their addresses.
    local: HashMap<Box<str>, Pod>,
}

impl Peers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().chain(self.local.values())
    }
}

impl Model {
    /// A policy is new or has changed.
    pub fn policy(&mut self, policy: &NetworkPolicy) {
        let namespace = self
            .names
            .take(policy.metadata.namespace.as_deref().unwrap_or_default().into());
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        self.mark(&namespace);
        self.policies
            .entry(namespace)
            .or_default()
            .insert(name.into(), Policy::new(policy));
    }

    /// A policy is gone.
    pub fn policy_gone(&mut self, namespace: &str, name: &str) {
        if let Some(policies) = self.policies.get_mut(namespace) {
            policies.remove(name);
            if policies.is_empty() {
                self.policies.remove(namespace);
            }
            self.mark(namespace);
        }
    }

    /// Whether there is any policy at all.
    pub fn has_policies(&self) -> bool {
        !self.policies.is_empty()
    }

    /// A namespace is new or has changed.
    pub fn namespace(&mut self, namespace: &Namespace) {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        if self.peers.namespaces.get(name) != Some(&labels) {
            self.peers.namespaces.insert(name.into(), labels);
            self.program.regroup(&self.peers);
        }
    }

    /// A namespace is gone.
    pub fn namespace_gone(&mut self, name: &str) {
        if self.peers.namespaces.remove(name).is_some() {
            self.program.regroup(&self.peers);
        }
    }

    /// A pod of the cluster is new or has changed.
    pub fn pod(&mut self, pod: &v1::Pod) {
        let meta = &pod.metadata;
        let name = (
            meta.namespace.as_deref().unwrap_or_default().into(),
            meta.name.as_deref().unwrap_or_default().into(),
        );
        let new = address(pod).map(|address| self.compact(pod, address));
        self.peer(name, new.as_ref());
    }

    /// A pod of the cluster is gone.
    pub fn pod_gone(&mut self, namespace: &str, name: &str) {
        self.peer((namespace.into(), name.into()), None);
    }

    /// A pod of this node has this address from now on.
    pub fn local_pod(&mut self, uid: &str, pod: &v1::Pod, address: Ipv4Addr) {
        let new = self.compact(pod, address);
        if self.peers.local.get(uid) == Some(&new) {
            return;
        }
        // Whoever had the address before has it no more.
        let local = self.peers.local.iter();
        let before: Vec<Box<str>> = local
            .filter(|(known, pod)| pod.address == address && ***known != *uid)
            .map(|(known, _)| known.clone())
            .collect();
        before.iter().for_each(|uid| self.local_pod_gone(uid));
        self.dirty.insert(uid.into());
        let old = self.peers.local.insert(uid.into(), new.clone());
        self.program
            .peer_changed(&self.peers.namespaces, old.as_ref(), Some(&new));
    }

    /// A pod of this node has changed: its labels, say. Unknown ones are none of ours.
    pub fn local_pod_changed(&mut self, uid: &str, pod: &v1::Pod) {
        if let Some(address) = self.local_address(uid) {
            self.local_pod(uid, pod, address);
        }
    }

    /// The address of a pod of this node.
    pub fn local_address(&self, uid: &str) -> Option<Ipv4Addr> {
        self.peers.local.get(uid).map(|pod| pod.address)
    }

    /// A pod of this node has no address any more.
    pub fn local_pod_gone(&mut self, uid: &str) {
        self.dirty.insert(uid.into());
        if let Some(old) = self.peers.local.remove(uid) {
            self.program
                .peer_changed(&self.peers.namespaces, Some(&old), None);
        }
    }

    /// Where the node answers names; none: nowhere.
    pub fn dns(&mut self, address: Option<Ipv4Addr>) {
        self.dns = address;
        let port = |protocol, name: &str| NamedPort {
            name: name.into(),
            protocol,
            number: DNS_PORT,
        };
        let (key, value) = DNS_LABEL;
        let pod = address.map(|address| Pod {
            namespace: DNS_NAMESPACE.into(),
            labels: Arc::new(Labels::from([(key.to_owned(), value.to_owned())])),
            ports: [port(Protocol::Udp, "dns"), port(Protocol::Tcp, "dns-tcp")].into(),
            address,
        });
        self.peer((DNS_NAMESPACE.into(), "".into()), pod.as_ref());
    }

    pub(crate) fn dns_address(&self) -> Option<Ipv4Addr> {
        self.dns
    }

    /// Works out what is to change in the kernel.
    pub(crate) fn take_changes(&mut self) -> Changes {
        for uid in std::mem::take(&mut self.dirty) {
            let found = self.peers.local.get(&uid).map(|pod| {
                let policies = self.policies.get(&pod.namespace);
                let allowed = profile(pod, policies.into_iter().flat_map(BTreeMap::values));
                (pod.address, allowed)
            });
            let isolated = found.filter(|(_, profile)| *profile != Profile::default());
            self.program.set_profile(uid, isolated);
        }
        self.program.take_changes(&self.peers)
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    fn mark(&mut self, namespace: &str) {
        let within = self
            .peers
            .local
            .iter()
            .filter(|(_, pod)| *pod.namespace == *namespace);
        self.dirty.extend(within.map(|(uid, _)| uid.clone()));
    }

    fn peer(&mut self, name: Name, new: Option<&Pod>) {
        let old = match new {
            Some(new) => self.peers.pods.insert(name, new.clone()),
            None => self.peers.pods.remove(&name),
        };
        if old.as_ref() != new {
            self.program
                .peer_changed(&self.peers.namespaces, old.as_ref(), new);
        }
    }

    fn compact(&mut self, pod: &v1::Pod, address: Ipv4Addr) -> Pod {
        let initial = pod
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten());
        let sidecars = initial.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers).chain(sidecars);
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let ports: Vec<NamedPort> = ports
            .filter_map(|port| {
                Some(NamedPort {
                    name: port.name.as_deref()?.into(),
                    protocol: Protocol::of(port.protocol.as_deref())?,
                    number: u16::try_from(port.container_port).ok()?,
                })
            })
            .collect();
        Pod {
            namespace: self
                .names
                .take(pod.metadata.namespace.as_deref().unwrap_or_default().into()),
            labels: self
                .labels
                .take(pod.metadata.labels.clone().unwrap_or_default().into()),
            ports: self.ports.take(ports.into()),
            address,
        }
    }
}

/// The pod's own address, while it may use it. One with its node's network has none.
fn address(pod: &v1::Pod) -> Option<Ipv4Addr> {
    let status = pod.status.as_ref()?;
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let uses_node = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    if is_over || uses_node {
        return None;
    }
    ipv4(status.pod_ip.as_deref()?.parse().ok()?)
}

pub(crate) fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests;
