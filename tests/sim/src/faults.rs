//! What goes wrong, when, and for how long: chosen by chance, within what a cluster must survive.

use crate::chance::Chance;
use crate::disk::Health;
use crate::network::{HostId, Weather};

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process dies; it comes back after this many milliseconds.
    Crash(HostId, u64),
    /// A machine loses its power.
    PowerCut(HostId, u64),
    /// All machines lose their power.
    PowerCutOfAll(u64),
    /// A process ends in order.
    Stop(HostId, u64),
    /// A process stands still; whether its clock goes on.
    Pause(HostId, u64, bool),
    /// A clock moves forward.
    Jump(HostId, u64),
    /// Links are cut, one way each.
    Cut(Vec<(HostId, HostId)>, u64),
    /// The network gets worse.
    Weather(Weather, u64),
    /// A disk gets worse.
    Disk(HostId, Health, u64),
    /// A bit of a disk flips while the machine is off.
    FlipBit(HostId, u64),
    /// A disk is lost.
    Wipe(HostId, u64),
    /// A machine comes back under another address.
    Move(HostId, u64),
    /// A new server joins.
    Grow,
}

/// Which kinds there are in a run: not always all, because some hide others.
#[derive(Clone, Debug)]
pub(crate) struct Menu(Vec<Kind>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    PowerCut,
    PowerCutOfAll,
    Stop,
    Pause,
    Jump,
    Cut,
    Isolate,
    Weather,
    Disk,
    FlipBit,
    Wipe,
    Move,
    Grow,
}

const KINDS: [Kind; 14] = [
    Kind::Crash,
    Kind::PowerCut,
    Kind::PowerCutOfAll,
    Kind::Stop,
    Kind::Pause,
    Kind::Jump,
    Kind::Cut,
    Kind::Isolate,
    Kind::Weather,
    Kind::Disk,
    Kind::FlipBit,
    Kind::Wipe,
    Kind::Move,
    Kind::Grow,
];

/// What can be hit.
pub(crate) struct Scene {
    /// Hosts with a process that runs.
    pub(crate) running: Vec<HostId>,
    /// All hosts.
    pub(crate) all: Vec<HostId>,
    /// The host that leads.
    pub(crate) leading: Option<HostId>,
    /// Whether one disk or address may be lost now: no other loss is unrepaired.
    pub(crate) may_lose: bool,
    /// Whether another server may join.
    pub(crate) may_grow: bool,
}

/// Longest time of a fault.
const LASTS_MS: u64 = 1500;

impl Menu {
    /// Each kind with a chance of two thirds.
    pub(crate) fn new(chance: &Chance) -> Menu {
        let chosen = KINDS.iter().filter(|_| !chance.one_in(3));
        Menu(chosen.copied().collect())
    }

    /// The next fault, unless nothing can be hit.
    pub(crate) fn choose(&self, chance: &Chance, scene: &Scene) -> Option<Fault> {
        let kind = chance.pick(&self.0)?;
        // Leaders are where it hurts.
        let leading = scene.leading.filter(|_| chance.one_in(3));
        let host = leading.or_else(|| chance.pick(&scene.running))?;
        let lasts = chance.number(20..LASTS_MS);
        let loses = |fault| scene.may_lose.then_some(fault);
        match kind {
            Kind::Crash => Some(Fault::Crash(host, lasts)),
            Kind::PowerCut => Some(Fault::PowerCut(host, lasts)),
            Kind::PowerCutOfAll => Some(Fault::PowerCutOfAll(lasts)),
            Kind::Stop => Some(Fault::Stop(host, lasts)),
            Kind::Pause => Some(Fault::Pause(host, lasts, chance.one_in(2))),
            Kind::Jump => Some(Fault::Jump(host, lasts)),
            Kind::Cut => Some(Fault::Cut(links(chance, scene), lasts)),
            Kind::Isolate => Some(Fault::Cut(isolate(chance, host, scene), lasts)),
            Kind::Weather => Some(Fault::Weather(weather(chance), lasts)),
            Kind::Disk => Some(Fault::Disk(host, health(chance), lasts)),
            Kind::FlipBit => loses(Fault::FlipBit(host, lasts)),
            Kind::Wipe => loses(Fault::Wipe(host, lasts)),
            // Servers that all move before anybody hears of it cannot find each other.
            Kind::Move => loses(Fault::Move(host, lasts)),
            Kind::Grow => scene.may_grow.then_some(Fault::Grow),
        }
    }
}

/// Some links, one way.
fn links(chance: &Chance, scene: &Scene) -> Vec<(HostId, HostId)> {
    let pairs = scene
        .all
        .iter()
        .flat_map(|from| scene.all.iter().map(move |to| (*from, *to)));
    pairs
        .filter(|(from, to)| from != to && chance.one_in(3))
        .collect()
}

/// One host from all others: both ways, or one.
fn isolate(chance: &Chance, host: HostId, scene: &Scene) -> Vec<(HostId, HostId)> {
    let (hears, is_heard) = match chance.number(0..4) {
        0 => (true, false),
        1 => (false, true),
        _ => (false, false),
    };
    let others = scene.all.iter().copied().filter(|other| *other != host);
    others
        .flat_map(|other| {
            let out = (!is_heard).then_some((host, other));
            let back = (!hears).then_some((other, host));
            out.into_iter().chain(back)
        })
        .collect()
}

fn weather(chance: &Chance) -> Weather {
    Weather {
        delay_ms: chance.number(1..120),
        lost_permille: chance.number(0..150),
        repeated_permille: chance.number(0..200),
        snapshot_piece_ms: chance.number(1..200),
    }
}

fn health(chance: &Chance) -> Health {
    match chance.number(0..3) {
        0 => Health {
            stall_ms: chance.number(10..1000),
            ..Health::default()
        },
        1 => Health {
            fails_one_in: chance.number(1..20),
            ..Health::default()
        },
        _ => Health {
            is_full: true,
            ..Health::default()
        },
    }
}
