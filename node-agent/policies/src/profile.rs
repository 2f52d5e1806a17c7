//! What one pod may receive and send, by all policies that pick it. Pure.

use std::sync::Arc;

use crate::Protocol;
use crate::model::Pod;
use crate::policy::{Peers, Policy, Port, PortRange, Rule, Scope};
use crate::ranges::Range;

/// What a pod is allowed. None: it is not isolated in that direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) ingress: Option<Arc<[Clause]>>,
    pub(crate) egress: Option<Arc<[Clause]>>,
}

/// Peers and ports that go together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Clause {
    pub(crate) peer: Peer,
    pub(crate) ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Peer {
    Anyone,
    Pods(Scope),
    Block(Arc<[Range]>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ports {
    All,
    /// In order, without doubles.
    Listed(Arc<[PortRange]>),
    /// What pods of the scope call so.
    Named(Scope, Protocol, Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// Puts together what the policies of the pod's namespace say about it.
pub(crate) fn profile<'a>(pod: &Pod, policies: impl Iterator<Item = &'a Policy>) -> Profile {
    let (mut ingress, mut egress) = (None, None);
    for policy in policies.filter(|policy| policy.pods.matches(&pod.labels)) {
        let both = [
            (Direction::Ingress, &policy.ingress, &mut ingress),
            (Direction::Egress, &policy.egress, &mut egress),
        ];
        for (direction, rules, allowed) in both {
            if let Some(rules) = rules {
                let allowed: &mut Vec<Clause> = allowed.get_or_insert_default();
                for rule in rules {
                    add(rule, direction, pod, allowed);
                }
            }
        }
    }
    Profile {
        ingress: ingress.map(finished),
        egress: egress.map(finished),
    }
}

/// Equal sets of clauses become equal lists, so that pods share what is made of them.
fn finished(mut clauses: Vec<Clause>) -> Arc<[Clause]> {
    clauses.sort_unstable();
    clauses.dedup();
    // Whoever lets everything through needs no second clause.
    let all = Clause {
        peer: Peer::Anyone,
        ports: Ports::All,
    };
    if clauses.contains(&all) {
        return [all].into();
    }
    clauses.into()
}

fn add(rule: &Rule, direction: Direction, pod: &Pod, allowed: &mut Vec<Clause>) {
    let peers: Vec<Peer> = match &rule.peers {
        Peers::Everyone => vec![Peer::Anyone],
        Peers::Some { scopes, block } => {
            let block = (!block.is_empty()).then(|| Peer::Block(block.clone()));
            scopes.iter().cloned().map(Peer::Pods).chain(block).collect()
        }
    };
    let Some(ports) = &rule.ports else {
        let all = peers.into_iter().map(|peer| Clause {
            peer,
            ports: Ports::All,
        });
        return allowed.extend(all);
    };
    let listed = listed(ports, direction, pod);
    for peer in &peers {
        if !listed.is_empty() {
            allowed.push(Clause {
                peer: peer.clone(),
                ports: Ports::Listed(listed.clone()),
            });
        }
        if direction == Direction::Egress {
            allowed.extend(ports.iter().filter_map(|port| named(peer, port)));
        }
    }
}

/// The numbers. What comes in is for this pod, so its own names count.
fn listed(ports: &[Port], direction: Direction, pod: &Pod) -> Arc<[PortRange]> {
    let mut all = Vec::new();
    for port in ports {
        match port {
            Port::Numbers(range) => all.push(*range),
            Port::Named(protocol, name) if direction == Direction::Ingress => {
                all.extend(pod.ports_named(*protocol, name).map(|number| PortRange {
                    protocol: *protocol,
                    from: number,
                    to: number,
                }));
            }
            Port::Named(..) => {}
        }
    }
    all.sort_unstable();
    all.dedup();
    all.into()
}

/// A name means another number on each pod that packets go to, and nothing on what is no pod.
fn named(peer: &Peer, port: &Port) -> Option<Clause> {
    let Port::Named(protocol, name) = port else {
        return None;
    };
    let (peer, scope) = match peer {
        Peer::Pods(scope) => (Peer::Anyone, scope.clone()),
        other => (other.clone(), Scope::everywhere()),
    };
    Some(Clause {
        peer,
        ports: Ports::Named(scope, *protocol, name.clone()),
    })
}
