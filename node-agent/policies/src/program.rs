//! What is in the kernel, and what to tell it when policies or pods change. Pure.
//!
//! Each isolated pod's address leads to a chain, which pods that are allowed the same share; a chain is never changed,
//! but replaced. Peers are sets, one for each selector that a pod of this node needs; ports are chains of their own.
//! So a pod that comes or goes somewhere costs a look at each set's selector and an element in those that pick it, and
//! a packet costs what the policies of its own pod cost, however many others there are.

mod changes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use flotilla_nftables::Name;

use crate::Protocol;
use crate::model::{Labels, Peers, Pod};
use crate::policy::{PortRange, Scope};
use crate::profile::{Clause, Direction, Peer, Ports, Profile};
use crate::ranges::Range;

pub(crate) use changes::{Body, Changes, Content, Element, Line, NewChain, NewSet, Way};

/// Pods, or ports of pods, that rules name together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Group {
    scope: Scope,
    /// None: their addresses. Else: their addresses with the ports of this name.
    port: Option<(Protocol, Arc<str>)>,
}

impl Group {
    /// What the pod is in the group's set.
    fn elements(&self, namespaces: &HashMap<Box<str>, Labels>, pod: &Pod) -> Vec<Element> {
        let labels = namespaces.get(&*pod.namespace);
        if !self.scope.picks(&pod.namespace, labels, &pod.labels) {
            return Vec::new();
        }
        match &self.port {
            None => vec![Element::Address(pod.address)],
            Some((protocol, name)) => pod
                .ports_named(*protocol, name)
                .map(|number| Element::Port(pod.address, *protocol, number))
                .collect(),
        }
    }
}

/// A group's set, and how many pods are behind each element: two may have one address for a moment.
#[derive(Debug)]
struct Members {
    name: Name,
    counts: HashMap<Element, u32>,
    /// Elements that may have changed, and whether the kernel has them.
    touched: HashMap<Element, bool>,
}

impl Members {
    fn add(&mut self, element: Element) {
        let count = self.counts.entry(element).or_default();
        self.touched.entry(element).or_insert(*count > 0);
        *count += 1;
    }

    fn remove(&mut self, element: Element) {
        let Some(count) = self.counts.get_mut(&element) else {
            return;
        };
        self.touched.entry(element).or_insert(true);
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&element);
        }
    }
}

type ChainKey = (Direction, Arc<[Clause]>);

/// All that this node enforces.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Of isolated pods, by uid.
    profiles: BTreeMap<Box<str>, (Ipv4Addr, Profile)>,
    is_changed: bool,
    chains: BTreeMap<ChainKey, Name>,
    ports: BTreeMap<Arc<[PortRange]>, Name>,
    groups: BTreeMap<Group, Members>,
    blocks: BTreeMap<Arc<[Range]>, Name>,
    ways: BTreeMap<(Direction, Ipv4Addr), Name>,
    isolated: BTreeSet<Ipv4Addr>,
    names: u64,
}

impl Program {
    /// Notes what a pod of this node is allowed; none: everything.
    pub(crate) fn set_profile(&mut self, uid: Box<str>, new: Option<(Ipv4Addr, Profile)>) {
        let old = self.profiles.get(&uid);
        if old == new.as_ref() {
            return;
        }
        self.is_changed = true;
        match new {
            Some(new) => drop(self.profiles.insert(uid, new)),
            None => drop(self.profiles.remove(&uid)),
        }
    }

    /// Takes over that a pod is another one than before.
    pub(crate) fn peer_changed(
        &mut self,
        namespaces: &HashMap<Box<str>, Labels>,
        old: Option<&Pod>,
        new: Option<&Pod>,
    ) {
        for (group, members) in &mut self.groups {
            let elements = |pod| group.elements(namespaces, pod);
            old.into_iter()
                .flat_map(elements)
                .for_each(|element| members.remove(element));
            new.into_iter()
                .flat_map(elements)
                .for_each(|element| members.add(element));
        }
    }

    /// Takes over that namespaces have other labels.
    pub(crate) fn regroup(&mut self, peers: &Peers) {
        let by_labels = self.groups.iter_mut();
        for (group, members) in by_labels.filter(|(group, _)| group.scope.is_by_namespace_labels()) {
            for element in std::mem::take(&mut members.counts).into_keys() {
                members.touched.entry(element).or_insert(true);
            }
            for element in peers
                .iter()
                .flat_map(|pod| group.elements(&peers.namespaces, pod))
            {
                members.touched.entry(element).or_insert(false);
                *members.counts.entry(element).or_default() += 1;
            }
        }
    }

    /// What is to change since the last time.
    pub(crate) fn take_changes(&mut self, peers: &Peers) -> Changes {
        let mut changes = Changes::default();
        for members in self.groups.values_mut() {
            for (element, was_there) in std::mem::take(&mut members.touched) {
                let is_there = members.counts.contains_key(&element);
                match (was_there, is_there) {
                    (false, true) => changes.added.push((members.name.clone(), element)),
                    (true, false) => changes.removed.push((members.name.clone(), element)),
                    _ => {}
                }
            }
        }
        if std::mem::take(&mut self.is_changed) {
            self.rebuild(peers, &mut changes);
        }
        changes
    }

    /// All that there is, as changes of nothing.
    pub(crate) fn everything(&self) -> Changes {
        let mut all = Changes::default();
        for members in self.groups.values() {
            all.sets
                .push(NewSet::of_group(&members.name, members.counts.keys().copied()));
        }
        let blocks = self.blocks.iter();
        all.sets
            .extend(blocks.map(|(ranges, name)| NewSet::of_block(name, ranges.clone())));
        for (ports, name) in &self.ports {
            all.chains.push(NewChain::of_ports(name, ports.clone()));
        }
        for ((direction, clauses), name) in &self.chains {
            let lines = clauses.iter().map(|clause| self.line(clause)).collect();
            all.chains
                .push(NewChain::new(name, Body::Allowed(*direction, lines)));
        }
        let ways = self.ways.iter();
        all.ways_added
            .extend(ways.map(|((direction, address), chain)| Way::new(*direction, *address, chain)));
        all.isolated_added.extend(&self.isolated);
        all
    }

    /// Makes what the profiles need, and removes what they need no more.
    fn rebuild(&mut self, peers: &Peers, changes: &mut Changes) {
        let mut wanted: BTreeMap<(Direction, Ipv4Addr), Arc<[Clause]>> = BTreeMap::new();
        for (address, profile) in self.profiles.values() {
            let both = [
                (Direction::Ingress, &profile.ingress),
                (Direction::Egress, &profile.egress),
            ];
            for (direction, clauses) in both {
                wanted.extend(clauses.clone().map(|clauses| ((direction, *address), clauses)));
            }
        }
        let needed: BTreeSet<ChainKey> = wanted
            .iter()
            .map(|((direction, _), clauses)| (*direction, clauses.clone()))
            .collect();
        for key in &needed {
            if !self.chains.contains_key(key) {
                self.add_chain(key, peers, changes);
            }
        }
        self.lead(wanted, changes);
        let isolated: BTreeSet<Ipv4Addr> = self.ways.keys().map(|(_, address)| *address).collect();
        changes.isolated_added.extend(isolated.difference(&self.isolated));
        changes
            .isolated_removed
            .extend(self.isolated.difference(&isolated));
        self.isolated = isolated;
        self.chains.retain(|key, name| {
            let is_needed = needed.contains(key);
            if !is_needed {
                changes.chains_removed.push(name.clone());
            }
            is_needed
        });
        self.sweep(changes);
    }

    fn lead(&mut self, wanted: BTreeMap<(Direction, Ipv4Addr), Arc<[Clause]>>, changes: &mut Changes) {
        let mut ways = BTreeMap::new();
        for ((direction, address), clauses) in wanted {
            if let Some(chain) = self.chains.get(&(direction, clauses)) {
                ways.insert((direction, address), chain.clone());
            }
        }
        let way = |((direction, address), chain): (&(Direction, Ipv4Addr), &Name)| {
            Way::new(*direction, *address, chain)
        };
        let is_old = |at, chain: &Name| self.ways.get(at) != Some(chain);
        let is_new = |at, chain: &Name| ways.get(at) != Some(chain);
        let removed = self.ways.iter().filter(|(at, chain)| is_new(*at, chain));
        changes.ways_removed.extend(removed.map(way));
        let added = ways.iter().filter(|(at, chain)| is_old(*at, chain));
        changes.ways_added.extend(added.map(way));
        self.ways = ways;
    }

    fn add_chain(&mut self, key: &ChainKey, peers: &Peers, changes: &mut Changes) {
        let (direction, clauses) = key;
        for clause in clauses.iter() {
            self.add_parts(clause, peers, changes);
        }
        let lines = clauses.iter().map(|clause| self.line(clause)).collect();
        let name = self.fresh(match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        });
        changes
            .chains
            .push(NewChain::new(&name, Body::Allowed(*direction, lines)));
        self.chains.insert(key.clone(), name);
    }

    /// Makes the sets and chains that a clause refers to.
    fn add_parts(&mut self, clause: &Clause, peers: &Peers, changes: &mut Changes) {
        for group in groups(clause) {
            if self.groups.contains_key(&group) {
                continue;
            }
            let name = self.fresh(if group.port.is_some() { "named" } else { "pods" });
            let mut counts: HashMap<Element, u32> = HashMap::new();
            for element in peers
                .iter()
                .flat_map(|pod| group.elements(&peers.namespaces, pod))
            {
                *counts.entry(element).or_default() += 1;
            }
            changes.sets.push(NewSet::of_group(&name, counts.keys().copied()));
            let members = Members {
                name,
                counts,
                touched: HashMap::new(),
            };
            self.groups.insert(group, members);
        }
        if let Peer::Block(ranges) = &clause.peer
            && !self.blocks.contains_key(ranges)
        {
            let name = self.fresh("block");
            changes.sets.push(NewSet::of_block(&name, ranges.clone()));
            self.blocks.insert(ranges.clone(), name);
        }
        if let Ports::Listed(ports) = &clause.ports
            && !self.ports.contains_key(ports)
        {
            let name = self.fresh("ports");
            changes.chains.push(NewChain::of_ports(&name, ports.clone()));
            self.ports.insert(ports.clone(), name);
        }
    }

    /// A clause with the names of what it refers to.
    fn line(&self, clause: &Clause) -> Line {
        let [pods, named] = both_groups(clause).map(|group| {
            let found = group.and_then(|group| self.groups.get(&group));
            found.map(|members| members.name.clone())
        });
        let block = match &clause.peer {
            Peer::Block(ranges) => self.blocks.get(ranges).cloned(),
            _ => None,
        };
        let ports = match &clause.ports {
            Ports::Listed(ports) => self.ports.get(ports).cloned(),
            _ => None,
        };
        Line {
            peer: pods.or(block),
            named,
            ports,
        }
    }

    /// Removes what no chain refers to any more.
    fn sweep(&mut self, changes: &mut Changes) {
        let clauses = || self.chains.keys().flat_map(|(_, clauses)| clauses.iter());
        let used: BTreeSet<Group> = clauses().flat_map(groups).collect();
        let ports: BTreeSet<_> = clauses()
            .filter_map(|clause| match &clause.ports {
                Ports::Listed(ports) => Some(ports.clone()),
                _ => None,
            })
            .collect();
        let blocks: BTreeSet<_> = clauses()
            .filter_map(|clause| match &clause.peer {
                Peer::Block(ranges) => Some(ranges.clone()),
                _ => None,
            })
            .collect();
        let gone: Vec<Name> = self
            .groups
            .extract_if(.., |group, _| !used.contains(group))
            .map(|(_, members)| members.name)
            .collect();
        // An element of a set that goes needs no telling.
        changes.added.retain(|(set, _)| !gone.contains(set));
        changes.removed.retain(|(set, _)| !gone.contains(set));
        changes.sets_removed.extend(gone);
        let gone = self.blocks.extract_if(.., |ranges, _| !blocks.contains(ranges));
        changes.sets_removed.extend(gone.map(|(_, name)| name));
        let gone = self.ports.extract_if(.., |key, _| !ports.contains(key));
        changes.chains_removed.extend(gone.map(|(_, name)| name));
    }

    fn fresh(&mut self, what: &str) -> Name {
        self.names += 1;
        format!("{what}_{}", self.names).into()
    }
}

/// The groups of a clause: of its peers, and of its ports' names.
fn both_groups(clause: &Clause) -> [Option<Group>; 2] {
    let pods = match &clause.peer {
        Peer::Pods(scope) => Some(Group {
            scope: scope.clone(),
            port: None,
        }),
        _ => None,
    };
    let named = match &clause.ports {
        Ports::Named(scope, protocol, name) => Some(Group {
            scope: scope.clone(),
            port: Some((*protocol, name.clone())),
        }),
        _ => None,
    };
    [pods, named]
}

fn groups(clause: &Clause) -> impl Iterator<Item = Group> + use<> {
    both_groups(clause).into_iter().flatten()
}
