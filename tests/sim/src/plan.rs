//! What a seed makes of a run: how many, how large, how fast, how bad.

use std::time::Duration;

use flotilla_raft::{Limits, Timing};
use flotilla_store::HistoryLimits;

use crate::chance::Chance;
use crate::network::Weather;

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Servers at the start, and at most.
    pub(crate) hosts: usize,
    pub(crate) hosts_max: usize,
    pub(crate) writers: u32,
    pub(crate) watchers: u32,
    /// How long things go wrong.
    pub(crate) chaos_ms: u64,
    /// How often, per tick of a thousand.
    pub(crate) faults_permille: u64,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    /// The network between faults.
    pub(crate) weather: Weather,
    /// How much faster the fastest clock may be.
    pub(crate) drift_permille: u64,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(seed: u64) -> Plan {
        let chance = Chance::new(seed, "plan");
        let hosts = if chance.one_in(5) { 5 } else { 3 };
        Plan {
            seed,
            hosts,
            hosts_max: hosts + chance.number(0..3) as usize,
            writers: chance.number(2..6) as u32,
            watchers: 2,
            chaos_ms: chance.number(3000..8000),
            faults_permille: chance.number(1..9),
            timing: timing(),
            limits: limits(&chance),
            weather: Weather {
                delay_ms: chance.number(0..6),
                ..Weather::default()
            },
            drift_permille: if chance.one_in(2) { 0 } else { chance.number(1..50) },
        }
    }
}

/// Half of the real times: the shorter a run, the more runs.
fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(125),
        election_max: Duration::from_millis(250),
        patience: Duration::from_millis(1000),
    }
}

/// Small, so that snapshots and expired watches are frequent.
fn limits(chance: &Chance) -> Limits {
    Limits {
        history: HistoryLimits {
            events_max: chance.number(10..120) as usize,
            ..HistoryLimits::default()
        },
        snapshot_entries: chance.number(10..150),
        kept_entries: chance.number(0..30),
        ..Limits::default()
    }
}
