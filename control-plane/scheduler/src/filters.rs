//! Which nodes a pod may go to.
//!
//! Pure. Each filter is a question with yes or a reason; the words are Kubernetes' own.

mod nodes;
mod taints;

use std::fmt;

pub(crate) use nodes::matches as matches_node;
pub use nodes::matches_selector_term;
pub use taints::{tolerates, untolerated};

use crate::cluster::NodeEntry;
use crate::place::Candidate;

/// Why a node will not do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The pod names another node.
    OtherNode,
    /// The node takes no new pods.
    Unschedulable,
    /// The node is not what the pod's selector or affinity asks for.
    Affinity,
    /// The pod does not bear a taint: key and value.
    Taint(String, String),
    /// Another pod has the port.
    Ports,
    /// The node has as many pods as it may.
    TooManyPods,
    /// Not enough of this resource is left.
    Insufficient(String),
    /// The pod would make the spread too uneven.
    Spread,
    /// The node lacks the label by which pods are spread.
    SpreadLabel,
    /// The pods that it wants to be near are elsewhere.
    PodAffinity,
    /// A pod that it does not want to be near is there.
    PodAntiAffinity,
    /// A pod is there that does not want it near.
    ExistingAntiAffinity,
    /// A volume of the pod is elsewhere.
    VolumeAffinity,
    /// A claim of the pod can have no volume there.
    NoVolume,
    /// Another pod uses a claim that only one may use at a time.
    ClaimInUse,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::OtherNode => f.write_str("node(s) didn't match the requested node name"),
            Reason::Unschedulable => f.write_str("node(s) were unschedulable"),
            Reason::Affinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Reason::Taint(key, value) => write!(f, "node(s) had untolerated taint {{{key}: {value}}}"),
            Reason::Ports => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Reason::TooManyPods => f.write_str("Too many pods"),
            Reason::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Reason::Spread => f.write_str("node(s) didn't match pod topology spread constraints"),
            Reason::SpreadLabel => {
                f.write_str("node(s) didn't match pod topology spread constraints (missing required label)")
            }
            Reason::PodAffinity => f.write_str("node(s) didn't match pod affinity rules"),
            Reason::PodAntiAffinity => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Reason::VolumeAffinity => f.write_str("node(s) didn't match PersistentVolume's node affinity"),
            Reason::NoVolume => f.write_str("node(s) didn't find available persistent volumes to bind"),
            Reason::ClaimInUse => f.write_str(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ),
            Reason::ExistingAntiAffinity => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
        }
    }
}

/// Asks every filter in turn; the first that refuses says why.
///
/// # Errors
///
/// The reasons of the filter that refused: several when several resources run short.
pub fn check(candidate: &Candidate<'_>, entry: &NodeEntry) -> Result<(), Vec<Reason>> {
    let refuse = |reason: Reason| Err(vec![reason]);
    if nodes::is_closed(candidate.pod, entry) {
        return refuse(Reason::Unschedulable);
    }
    if !nodes::is_named(candidate.pod, entry) {
        return refuse(Reason::OtherNode);
    }
    if let Some(taint) = taints::untolerated(candidate.pod, entry, &["NoSchedule", "NoExecute"]).next() {
        return refuse(Reason::Taint(
            taint.key.clone(),
            taint.value.clone().unwrap_or_default(),
        ));
    }
    if !nodes::matches(candidate.pod, entry) {
        return refuse(Reason::Affinity);
    }
    if candidate
        .ports
        .iter()
        .any(|port| entry.ports.iter().any(|taken| taken.collides_with(port)))
    {
        return refuse(Reason::Ports);
    }
    let short = short(candidate, entry);
    if !short.is_empty() {
        return Err(short);
    }
    candidate.needs.check(candidate.storage, entry).or_else(refuse)?;
    candidate.spread.check(entry).or_else(refuse)?;
    candidate.neighbours.check(entry).or_else(refuse)
}

/// What the node has too little of.
fn short(candidate: &Candidate<'_>, entry: &NodeEntry) -> Vec<Reason> {
    let mut short = Vec::new();
    if i64::from(entry.pods) + 1 > entry.pods_max {
        short.push(Reason::TooManyPods);
    }
    let (wanted, taken, all) = (&candidate.demand.requests, &entry.requested, &entry.allocatable);
    let mut compare = |name: &str, wanted: i64, taken: i64, all: i64| {
        if wanted > 0 && wanted > all - taken {
            short.push(Reason::Insufficient(name.to_owned()));
        }
    };
    compare("cpu", wanted.cpu_milli, taken.cpu_milli, all.cpu_milli);
    compare("memory", wanted.memory, taken.memory, all.memory);
    compare("ephemeral-storage", wanted.storage, taken.storage, all.storage);
    for (name, amount) in &wanted.others {
        let of = |amounts: &flotilla_api::amounts::Amounts| amounts.others.get(name).copied().unwrap_or(0);
        compare(name, *amount, of(taken), of(all));
    }
    short
}
