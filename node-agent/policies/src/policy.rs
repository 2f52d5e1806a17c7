//! A NetworkPolicy as far as packets are concerned. Pure.

use std::fmt;
use std::sync::Arc;

use flotilla_api::selector::LabelSelector;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as Field;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::Protocol;
use crate::ranges::{Range, ranges};

/// A policy of one namespace.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) pods: LabelSelector,
    /// None: it is not about what comes in.
    pub(crate) ingress: Option<Box<[Rule]>>,
    /// None: it is not about what goes out.
    pub(crate) egress: Option<Box<[Rule]>>,
}

/// What a rule allows: these peers at these ports.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) peers: Peers,
    /// None: all ports and protocols.
    pub(crate) ports: Option<Box<[Port]>>,
}

#[derive(Debug)]
pub(crate) enum Peers {
    Everyone,
    Some {
        scopes: Box<[Scope]>,
        /// Of all address blocks together.
        block: Arc<[Range]>,
    },
}

/// Ports of one protocol, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortRange {
    pub(crate) protocol: Protocol,
    pub(crate) from: u16,
    pub(crate) to: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Port {
    Numbers(PortRange),
    /// Whatever number the destination's containers give that name.
    Named(Protocol, Arc<str>),
}

/// Pods that are picked by their labels and their namespaces'. Two that read the same are the same.
#[derive(Debug, Clone)]
pub(crate) struct Scope(Arc<Selection>);

#[derive(Debug)]
struct Selection {
    text: Box<str>,
    namespaces: Namespaces,
    pods: LabelSelector,
}

#[derive(Debug)]
enum Namespaces {
    One(Box<str>),
    Labelled(LabelSelector),
}

impl Policy {
    /// A policy that cannot be understood in full allows what was understood of it, and isolates all the same.
    pub(crate) fn new(policy: &NetworkPolicy) -> Self {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let spec = policy.spec.clone().unwrap_or_default();
        let types = spec.policy_types.unwrap_or_default();
        let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        let is_about = |wanted: &str, otherwise: bool| match types.is_empty() {
            true => otherwise,
            false => types.iter().any(|found| found == wanted),
        };
        let rule = |peers: Option<Vec<NetworkPolicyPeer>>, ports: Option<Vec<NetworkPolicyPort>>| Rule {
            peers: Peers::of(namespace, &peers.unwrap_or_default()),
            ports: ports
                .filter(|ports| !ports.is_empty())
                .map(|ports| ports.iter().filter_map(Port::of).collect()),
        };
        let ingress = spec.ingress.unwrap_or_default().into_iter();
        let egress = spec.egress.unwrap_or_default().into_iter();
        Self {
            pods: selector(spec.pod_selector.as_ref()),
            ingress: is_about("Ingress", true)
                .then(|| ingress.map(|allowed| rule(allowed.from, allowed.ports)).collect()),
            egress: is_about("Egress", has_egress)
                .then(|| egress.map(|allowed| rule(allowed.to, allowed.ports)).collect()),
        }
    }
}

impl Peers {
    fn of(namespace: &str, peers: &[NetworkPolicyPeer]) -> Self {
        if peers.is_empty() {
            return Peers::Everyone;
        }
        let is_selected = |peer: &&NetworkPolicyPeer| peer.ip_block.is_none();
        Peers::Some {
            scopes: peers
                .iter()
                .filter(is_selected)
                .map(|peer| Scope::of(namespace, peer))
                .collect(),
            block: ranges(peers.iter().filter_map(|peer| peer.ip_block.as_ref())).into(),
        }
    }
}

impl Port {
    fn of(port: &NetworkPolicyPort) -> Option<Self> {
        let protocol = Protocol::of(port.protocol.as_deref())?;
        let numbers = |from, to| Port::Numbers(PortRange { protocol, from, to });
        match &port.port {
            None => Some(numbers(0, u16::MAX)),
            Some(IntOrString::Int(first)) => {
                let from = u16::try_from(*first).ok()?;
                let to = port.end_port.map_or(Some(from), |end| u16::try_from(end).ok())?;
                Some(numbers(from, to))
            }
            Some(IntOrString::String(name)) => match name.parse() {
                Ok(number) => Some(numbers(number, number)),
                Err(_) => Some(Port::Named(protocol, name.as_str().into())),
            },
        }
    }
}

/// An absent or empty selector picks everything; one that cannot be understood, nothing.
fn selector(field: Option<&Field>) -> LabelSelector {
    match field {
        None => LabelSelector::default(),
        Some(field) => LabelSelector::from_field(Some(field)).unwrap_or_else(|_| LabelSelector::nothing()),
    }
}

impl Scope {
    fn of(namespace: &str, peer: &NetworkPolicyPeer) -> Self {
        let namespaces = match &peer.namespace_selector {
            None => Namespaces::One(namespace.into()),
            Some(field) => Namespaces::Labelled(selector(Some(field))),
        };
        Self::new(namespaces, selector(peer.pod_selector.as_ref()))
    }

    /// All pods.
    pub(crate) fn everywhere() -> Self {
        Self::new(
            Namespaces::Labelled(LabelSelector::default()),
            LabelSelector::default(),
        )
    }

    fn new(namespaces: Namespaces, pods: LabelSelector) -> Self {
        let text = match &namespaces {
            Namespaces::One(name) => format!("{name}/{pods:?}"),
            Namespaces::Labelled(selector) => format!("{selector:?}/{pods:?}"),
        };
        Self(Arc::new(Selection {
            text: text.into(),
            namespaces,
            pods,
        }))
    }

    /// Whether it asks for labels of namespaces.
    pub(crate) fn is_by_namespace_labels(&self) -> bool {
        matches!(self.0.namespaces, Namespaces::Labelled(_))
    }

    /// Whether it picks a pod of these labels. A namespace that is not known has none, and is never picked by labels.
    pub(crate) fn picks(
        &self,
        namespace: &str,
        namespace_labels: Option<&crate::model::Labels>,
        labels: &crate::model::Labels,
    ) -> bool {
        let is_within = match &self.0.namespaces {
            Namespaces::One(name) => **name == *namespace,
            Namespaces::Labelled(selector) => namespace_labels.is_some_and(|found| selector.matches(found)),
        };
        is_within && self.0.pods.matches(labels)
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Scope {}

impl PartialOrd for Scope {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scope {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.text.cmp(&other.0.text)
    }
}

impl std::hash::Hash for Scope {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |selector: &LabelSelector| match selector.is_empty() {
            true => "*".to_owned(),
            false => selector.to_string(),
        };
        match &self.0.namespaces {
            Namespaces::One(name) => write!(f, "{name}/{}", part(&self.0.pods)),
            Namespaces::Labelled(selector) => write!(f, "[{}]/{}", part(selector), part(&self.0.pods)),
        }
    }
}
