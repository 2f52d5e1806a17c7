//! Which thresholds are met, and for how long that is remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::thresholds::{Signal, Threshold, Thresholds};

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Free.
    pub available: i64,
    /// In all.
    pub capacity: i64,
}

/// What was measured. A signal that cannot be measured is not there, and is then never short.
pub type Levels = BTreeMap<Signal, Level>;

/// A threshold that is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// Of what there is too little.
    pub signal: Signal,
    /// How much there should at least be.
    pub wanted: i64,
    /// How much there is.
    pub available: i64,
}

/// The thresholds that are met, the most urgent first.
pub fn met(thresholds: &Thresholds, levels: &Levels) -> Vec<Met> {
    let short = |Threshold { signal, amount }: Threshold| {
        let level = levels.get(&signal)?;
        let wanted = amount.of(level.capacity);
        (level.available < wanted).then_some(Met {
            signal,
            wanted,
            available: level.available,
        })
    };
    thresholds.in_order().filter_map(short).collect()
}

/// A node's condition of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// `MemoryPressure`
    Memory,
    /// `DiskPressure`
    Disk,
    /// `PIDPressure`
    Pid,
}

impl Condition {
    /// The condition's type.
    pub fn name(self) -> &'static str {
        match self {
            Condition::Memory => "MemoryPressure",
            Condition::Disk => "DiskPressure",
            Condition::Pid => "PIDPressure",
        }
    }
}

impl Signal {
    /// The condition that tells of its being short.
    pub fn condition(self) -> Condition {
        match self {
            Signal::MemoryAvailable => Condition::Memory,
            Signal::PidAvailable => Condition::Pid,
            _ => Condition::Disk,
        }
    }
}

/// The conditions that hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressures {
    /// Too little memory.
    pub memory: bool,
    /// Too little disk space or too few inodes.
    pub disk: bool,
    /// Too few process numbers.
    pub pid: bool,
}

impl Pressures {
    /// The conditions that hold.
    pub fn list(self) -> Vec<Condition> {
        let all = [
            (Condition::Memory, self.memory),
            (Condition::Disk, self.disk),
            (Condition::Pid, self.pid),
        ];
        all.into_iter()
            .filter_map(|(condition, holds)| holds.then_some(condition))
            .collect()
    }
}

/// Remembers when each condition was last seen, so that it does not come and go with every measurement.
#[derive(Debug, Clone, Default)]
pub struct Pressure {
    last_seen: BTreeMap<Condition, Timestamp>,
}

impl Pressure {
    /// Takes a measurement in. A condition holds until nothing of it was seen for `transition`.
    pub fn note(&mut self, met: &[Met], transition: Duration, now: Timestamp) -> Pressures {
        for met in met {
            self.last_seen.insert(met.signal.condition(), now);
        }
        self.last_seen.retain(|_, seen| {
            let since = Duration::try_from(now.duration_since(*seen)).unwrap_or_default();
            since < transition || *seen == now
        });
        let holds = |condition| self.last_seen.contains_key(&condition);
        Pressures {
            memory: holds(Condition::Memory),
            disk: holds(Condition::Disk),
            pid: holds(Condition::Pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(list: &[(Signal, i64, i64)]) -> Levels {
        let level = |(signal, available, capacity): &(Signal, i64, i64)| {
            (
                *signal,
                Level {
                    available: *available,
                    capacity: *capacity,
                },
            )
        };
        list.iter().map(level).collect()
    }

    #[test]
    fn memory_comes_first_and_what_is_not_measured_is_not_short() {
        let thresholds = Thresholds::default();
        let low = levels(&[
            (Signal::NodeFsAvailable, 9, 100),
            (Signal::MemoryAvailable, 1, 1 << 30),
            (Signal::NodeFsInodesFree, 5, 100),
        ]);
        let found: Vec<String> = met(&thresholds, &low)
            .iter()
            .map(|met| format!("{} {}<{}", met.signal, met.available, met.wanted))
            .collect();
        assert_eq!(found, ["memory.available 1<104857600", "nodefs.available 9<10"]);
        assert!(met(&thresholds, &Levels::new()).is_empty());
    }

    #[test]
    fn a_condition_outlasts_its_measurement_by_the_transition_period() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let period = Duration::from_secs(300);
        let short = [Met {
            signal: Signal::ImageFsInodesFree,
            wanted: 2,
            available: 1,
        }];
        let mut pressure = Pressure::default();
        assert_eq!(pressure.note(&[], period, at(0)), Pressures::default());
        assert!(pressure.note(&short, period, at(10)).disk);
        assert!(pressure.note(&[], period, at(309)).disk);
        assert!(pressure.note(&short, period, at(309)).disk);
        assert!(pressure.note(&[], period, at(608)).disk);
        assert_eq!(pressure.note(&[], period, at(609)), Pressures::default());
        assert!(pressure.note(&short, Duration::ZERO, at(700)).disk);
        assert_eq!(pressure.note(&[], Duration::ZERO, at(701)).list(), []);
    }
}
