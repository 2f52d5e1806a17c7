//! What the kernel has been told of each service, and what to tell it when a service changes. Pure.
//!
//! A service is a list of elements of the kernel's maps. Its change is the difference of two such lists, so it costs
//! what the service costs, however many others there are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;

use crate::kernel::{
    Changes, Choice, DROP, Data, Element, GUARDED, HAIRPINS, MASQUERADED, REFUSED, REJECT, SOURCES, Side,
};
use crate::model::ServiceName;
use crate::sources::Range;
use crate::wanted::{Entry, Goal, Wanted};
use crate::{Backend, Frontend, Protocol};

/// A UDP flow that the kernel must not go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StaleFlow {
    pub(crate) frontend: Frontend,
    /// Where it went; none: it went nowhere, because there were no endpoints.
    pub(crate) backend: Option<(Ipv4Addr, u16)>,
}

#[derive(Debug, Clone, Default)]
struct Programmed {
    groups: Box<[ProgrammedGroup]>,
    entries: Box<[Entry]>,
    /// Who may use the guarded ones.
    sources: Box<[Range]>,
}

#[derive(Debug, Clone)]
struct ProgrammedGroup {
    hash: u32,
    /// By number: the place of a backend never changes while it is there and not the last.
    backends: Box<[Backend]>,
    sticky_seconds: Option<u32>,
}

/// All services as they are in the kernel.
#[derive(Debug, Default)]
pub(crate) struct Program {
    services: HashMap<ServiceName, Programmed>,
    /// Which service has an address and port. Another one that wants it waits.
    owners: HashMap<Frontend, ServiceName>,
    waiting: HashMap<Frontend, BTreeSet<ServiceName>>,
    /// This node's endpoints, which services share, and how many do.
    hairpins: HashMap<Ipv4Addr, u32>,
}

/// What an update leads to.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) changes: Changes,
    pub(crate) stale: Vec<StaleFlow>,
    /// Services that may now have what they waited for.
    pub(crate) released: BTreeSet<ServiceName>,
}

impl Program {
    /// Takes over what a service wants and adds what that changes to the update.
    pub(crate) fn update(&mut self, name: &ServiceName, wanted: Wanted, update: &mut Update) {
        let old = self.services.remove(name).unwrap_or_default();
        let wanted = self.own(name, wanted, &old, update);
        let new = Self::place(&old, wanted);
        stale_flows(&old, &new, &mut update.stale);
        let (before, after) = (elements(&old), elements(&new));
        for element in difference(&before, &after) {
            self.remove(element, &mut update.changes);
        }
        for element in difference(&after, &before) {
            self.add(element, &mut update.changes);
        }
        if !new.entries.is_empty() {
            self.services.insert(name.clone(), new);
        }
    }

    /// Everything that the kernel should have.
    pub(crate) fn elements(&self) -> Vec<Element> {
        let own = self
            .services
            .values()
            .flat_map(elements)
            .filter(|element| hairpin_address(element).is_none());
        let shared = self.hairpins.keys().map(|address| hairpin(*address));
        own.chain(shared).collect()
    }

    /// Where UDP clients of each service may be answered from.
    pub(crate) fn udp_backends(&self) -> HashMap<Frontend, HashSet<(Ipv4Addr, u16)>> {
        let mut all: HashMap<Frontend, HashSet<(Ipv4Addr, u16)>> = HashMap::new();
        for service in self.services.values() {
            for entry in service
                .entries
                .iter()
                .filter(|entry| entry.frontend.protocol == Protocol::Udp)
            {
                let backends = backends_of(service, entry).into_iter();
                all.entry(entry.frontend)
                    .or_default()
                    .extend(backends.map(|backend| (backend.address, backend.port)));
            }
        }
        all
    }

    /// Leaves out entries that another service has, and gives up those that are no longer wanted.
    fn own(
        &mut self,
        name: &ServiceName,
        mut wanted: Wanted,
        old: &Programmed,
        update: &mut Update,
    ) -> Wanted {
        let kept: HashSet<Frontend> = wanted.entries.iter().map(|entry| entry.frontend).collect();
        for entry in old.entries.iter().filter(|entry| !kept.contains(&entry.frontend)) {
            self.owners.remove(&entry.frontend);
            update
                .released
                .extend(self.waiting.remove(&entry.frontend).into_iter().flatten());
        }
        let mut seen = HashSet::new();
        wanted.entries.retain(|entry| {
            let owner = self.owners.entry(entry.frontend).or_insert_with(|| name.clone());
            let is_own = owner == name;
            if !is_own {
                self.waiting
                    .entry(entry.frontend)
                    .or_default()
                    .insert(name.clone());
            }
            is_own && seen.insert(entry.frontend)
        });
        wanted
    }

    /// Gives backends their numbers, as they were where possible.
    fn place(old: &Programmed, wanted: Wanted) -> Programmed {
        let known: HashMap<u32, &ProgrammedGroup> =
            old.groups.iter().map(|group| (group.hash, group)).collect();
        let mut groups = Vec::new();
        for group in wanted.groups {
            let before = known.get(&group.hash);
            groups.push(ProgrammedGroup {
                hash: group.hash,
                backends: numbered(before.map_or(&[][..], |before| &before.backends), group.backends),
                sticky_seconds: group.sticky_seconds,
            });
        }
        Programmed {
            groups: groups.into(),
            entries: wanted.entries.into(),
            sources: wanted.sources,
        }
    }

    fn add(&mut self, element: Element, changes: &mut Changes) {
        if let Some(address) = hairpin_address(&element) {
            let count = self.hairpins.entry(address).or_default();
            *count += 1;
            if *count > 1 {
                return;
            }
            // Removed and added in one update: it stays.
            if let Some(at) = changes.removed.iter().position(|removed| *removed == element) {
                changes.removed.swap_remove(at);
                return;
            }
        }
        changes.added.push(element);
    }

    fn remove(&mut self, element: Element, changes: &mut Changes) {
        if let Some(address) = hairpin_address(&element) {
            let count = self.hairpins.entry(address).or_default();
            *count = count.saturating_sub(1);
            if *count > 0 {
                return;
            }
            self.hairpins.remove(&address);
            if let Some(at) = changes.added.iter().position(|added| *added == element) {
                changes.added.swap_remove(at);
                return;
            }
        }
        changes.removed.push(element);
    }
}

/// The wanted backends; those that were there keep their places, new ones fill holes, the last ones move into what is
/// left of them.
fn numbered(before: &[Backend], wanted: Vec<Backend>) -> Box<[Backend]> {
    let mut new: BTreeSet<Backend> = wanted.into_iter().collect();
    let mut places: Vec<Option<Backend>> = before.iter().map(|backend| new.take(backend)).collect();
    let mut fresh = new.into_iter();
    for place in places.iter_mut().filter(|place| place.is_none()) {
        *place = fresh.next();
    }
    places.extend(fresh.map(Some));
    let mut at = 0;
    while at < places.len() {
        if places[at].is_none() {
            places.swap_remove(at);
        } else {
            at += 1;
        }
    }
    places.into_iter().flatten().collect()
}

/// What is in `these` and not in `those`.
fn difference(these: &[Element], those: &[Element]) -> Vec<Element> {
    let those: HashSet<&Element> = those.iter().collect();
    these
        .iter()
        .filter(|element| !those.contains(element))
        .copied()
        .collect()
}

/// The elements that a service is in the kernel.
fn elements(service: &Programmed) -> Vec<Element> {
    let backends = service.groups.iter().flat_map(|group| group.backends.iter());
    let local = backends.filter(|backend| backend.is_local);
    let local: BTreeSet<Ipv4Addr> = local.map(|backend| backend.address).collect();
    let mut all: Vec<Element> = local.into_iter().map(hairpin).collect();
    for entry in &service.entries {
        add_side(service, entry.frontend, entry.outside, false, &mut all);
        // What leads nowhere is refused alike on both sides.
        if let Some(inside @ Goal::Group(_)) = entry.inside {
            add_side(service, entry.frontend, inside, true, &mut all);
        }
        if entry.masquerade {
            all.push(element(MASQUERADED, &destination(entry.frontend), Data::None));
        }
        if entry.is_guarded {
            add_guard(entry.frontend, &service.sources, &mut all);
        }
    }
    all
}

fn add_guard(frontend: Frontend, sources: &[Range], all: &mut Vec<Element>) {
    let [address, protocol, port] = destination(frontend);
    all.push(element(GUARDED, &[address, protocol, port], Data::None));
    let sources: BTreeSet<&Range> = sources.iter().collect();
    for Range { network, prefix } in sources {
        let prefix = u32::from(*prefix).to_ne_bytes();
        let key = [address, protocol, port, network.octets(), prefix];
        all.push(element(SOURCES, &key, Data::None));
    }
}

fn add_side(service: &Programmed, frontend: Frontend, goal: Goal, inside: bool, all: &mut Vec<Element>) {
    let (side, key) = (Side::of(inside), destination(frontend));
    let group = match goal {
        Goal::Group(index) => service.groups.get(usize::from(index)),
        Goal::Reject => return all.push(element(REFUSED, &key, Data::Chain(REJECT))),
        Goal::Drop => return all.push(element(REFUSED, &key, Data::Chain(DROP))),
    };
    let Some(group) = group else { return };
    let choice = Choice {
        inside,
        count: u32::try_from(group.backends.len()).unwrap_or(u32::MAX),
        sticky_seconds: group.sticky_seconds,
    };
    all.push(element(side.chains, &key, Data::Choose(choice)));
    let [address, protocol, port] = key;
    for (number, backend) in group.backends.iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX).to_ne_bytes();
        let [to_address, to_port] = target(backend);
        let [a, b, c, d] = to_address;
        let [e, f, g, h] = to_port;
        let data = Data::Words([a, b, c, d, e, f, g, h], 2);
        all.push(element(side.backends, &[address, protocol, port, number], data));
        if group.sticky_seconds.is_some() {
            let key = [address, protocol, port, to_address, to_port];
            all.push(element(side.sticky, &key, Data::None));
        }
    }
}

fn element<const N: usize>(set: &'static str, words: &[[u8; 4]; N], data: Data) -> Element {
    let mut key = [0; 20];
    key[..N * 4].copy_from_slice(words.as_flattened());
    Element {
        set,
        key,
        key_words: u8::try_from(N).unwrap_or(u8::MAX),
        data,
    }
}

fn target(backend: &Backend) -> [[u8; 4]; 2] {
    let [high, low] = backend.port.to_be_bytes();
    [backend.address.octets(), [high, low, 0, 0]]
}

fn destination(frontend: Frontend) -> [[u8; 4]; 3] {
    let [high, low] = frontend.port.to_be_bytes();
    let protocol = [frontend.protocol.number(), 0, 0, 0];
    [frontend.address.octets(), protocol, [high, low, 0, 0]]
}

fn hairpin(address: Ipv4Addr) -> Element {
    element(HAIRPINS, &[address.octets(), address.octets()], Data::None)
}

fn hairpin_address(element: &Element) -> Option<Ipv4Addr> {
    let [a, b, c, d, ..] = element.key;
    (element.set == HAIRPINS).then(|| Ipv4Addr::new(a, b, c, d))
}

/// All backends that connections to an entry may have.
fn backends_of(service: &Programmed, entry: &Entry) -> HashSet<Backend> {
    let goals = [Some(entry.outside), entry.inside].into_iter().flatten();
    let groups = goals.filter_map(|goal| match goal {
        Goal::Group(index) => service.groups.get(usize::from(index)),
        Goal::Reject | Goal::Drop => None,
    });
    groups.flat_map(|group| group.backends.iter().copied()).collect()
}

/// Flows that the kernel would go on with although they lead nowhere any more, or could lead somewhere now.
fn stale_flows(old: &Programmed, new: &Programmed, stale: &mut Vec<StaleFlow>) {
    let udp = |entry: &&Entry| entry.frontend.protocol == Protocol::Udp;
    let mut before: HashMap<Frontend, HashSet<Backend>> = HashMap::new();
    for entry in old.entries.iter().filter(udp) {
        before.insert(entry.frontend, backends_of(old, entry));
    }
    for entry in new.entries.iter().filter(udp) {
        let (frontend, now) = (entry.frontend, backends_of(new, entry));
        let then = before.remove(&frontend).unwrap_or_default();
        if then.is_empty() && !now.is_empty() {
            stale.push(StaleFlow {
                frontend,
                backend: None,
            });
        }
        stale.extend(then.difference(&now).map(|backend| stale_flow(frontend, backend)));
    }
    for (frontend, then) in before {
        stale.extend(then.iter().map(|backend| stale_flow(frontend, backend)));
    }
}

fn stale_flow(frontend: Frontend, backend: &Backend) -> StaleFlow {
    StaleFlow {
        frontend,
        backend: Some((backend.address, backend.port)),
    }
}

#[cfg(test)]
mod tests;
