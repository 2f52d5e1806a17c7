//! `--eviction-hard`: from which level on pods are evicted.

use std::fmt;
use std::str::FromStr;

use flotilla_api::quantity::Quantity;

/// Something of which a node may run short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory that could still be used without reclaiming anything that is in use.
    MemoryAvailable,
    /// Disk space where pods write.
    NodeFsAvailable,
    /// Files that can still be made there.
    NodeFsInodesFree,
    /// Disk space where images are.
    ImageFsAvailable,
    /// Files that can still be made there.
    ImageFsInodesFree,
    /// Process numbers that are free.
    PidAvailable,
}

/// The signals in the order in which Kubernetes looks at them: memory first.
pub(super) const SIGNALS: [Signal; 6] = [
    Signal::MemoryAvailable,
    Signal::NodeFsAvailable,
    Signal::NodeFsInodesFree,
    Signal::ImageFsAvailable,
    Signal::ImageFsInodesFree,
    Signal::PidAvailable,
];

impl Signal {
    /// Kubelet's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory.available",
            Signal::NodeFsAvailable => "nodefs.available",
            Signal::NodeFsInodesFree => "nodefs.inodesFree",
            Signal::ImageFsAvailable => "imagefs.available",
            Signal::ImageFsInodesFree => "imagefs.inodesFree",
            Signal::PidAvailable => "pid.available",
        }
    }

    /// The resource that is short, as messages name it.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => "ephemeral-storage",
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A level, absolute or relative to what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// A number, of bytes or pieces.
    Fixed(i64),
    /// Hundredths of a percent.
    Share(u32),
}

const WHOLE: i64 = 10_000;

impl Amount {
    /// The level for this capacity.
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Amount::Fixed(amount) => amount,
            // Divided first where the product would not fit.
            Amount::Share(share) => match capacity.checked_mul(i64::from(share)) {
                Some(product) => product / WHOLE,
                None => (capacity / WHOLE).saturating_mul(i64::from(share)),
            },
        }
    }
}

/// One threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// Less than this is too little.
    pub amount: Amount,
}

/// All thresholds, at most one for each signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds(Vec<Threshold>);

impl Default for Thresholds {
    /// Kubelet's own.
    fn default() -> Self {
        let list = [
            (Signal::MemoryAvailable, Amount::Fixed(100 << 20)),
            (Signal::NodeFsAvailable, Amount::Share(1_000)),
            (Signal::NodeFsInodesFree, Amount::Share(500)),
            (Signal::ImageFsAvailable, Amount::Share(1_500)),
            (Signal::ImageFsInodesFree, Amount::Share(500)),
        ];
        Self(list.map(|(signal, amount)| Threshold { signal, amount }).into())
    }
}

impl Thresholds {
    /// The threshold of a signal.
    pub fn of(&self, signal: Signal) -> Option<Threshold> {
        self.0
            .iter()
            .copied()
            .find(|threshold| threshold.signal == signal)
    }

    /// All of them, in the order in which they are looked at.
    pub(super) fn in_order(&self) -> impl Iterator<Item = Threshold> {
        SIGNALS.into_iter().filter_map(|signal| self.of(signal))
    }
}

/// Why a threshold cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseThresholdError {
    /// Not `signal<amount>`.
    #[error("{0:?} is not of the form SIGNAL<AMOUNT, like memory.available<100Mi or nodefs.available<10%")]
    Form(String),
    /// Nothing that is measured.
    #[error(
        "{0:?} is no eviction signal; there are memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available"
    )]
    Signal(String),
    /// Not an amount.
    #[error(
        "{signal}<{amount}: the amount must be a quantity like 100Mi or a percentage between 0% and 100%"
    )]
    Amount {
        /// Of what.
        signal: Signal,
        /// What stands there.
        amount: String,
    },
    /// Said twice.
    #[error("{0} has two thresholds; say only one")]
    Twice(Signal),
}

impl FromStr for Thresholds {
    type Err = ParseThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut thresholds = Self(Vec::new());
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, amount) = part
                .split_once('<')
                .ok_or_else(|| ParseThresholdError::Form(part.to_owned()))?;
            let signal = SIGNALS.into_iter().find(|signal| signal.name() == name);
            let signal = signal.ok_or_else(|| ParseThresholdError::Signal(name.to_owned()))?;
            let wrong = || ParseThresholdError::Amount {
                signal,
                amount: amount.to_owned(),
            };
            let amount = parse_amount(amount).ok_or_else(wrong)?;
            if thresholds.of(signal).is_some() {
                return Err(ParseThresholdError::Twice(signal));
            }
            thresholds.0.push(Threshold { signal, amount });
        }
        Ok(thresholds)
    }
}

fn parse_amount(text: &str) -> Option<Amount> {
    let Some(percent) = text.strip_suffix('%') else {
        let amount = Quantity::parse(text)
            .ok()
            .filter(|amount| !amount.is_negative())?;
        return Some(Amount::Fixed(amount.value()));
    };
    let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
    let hundredths: u32 = format!("{part:0<2}").get(..2)?.parse().ok()?;
    let share = whole
        .parse::<u32>()
        .ok()?
        .checked_mul(100)?
        .checked_add(hundredths)?;
    (part.len() <= 2 && share <= 10_000).then_some(Amount::Share(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_kubelet_reads_them() {
        let read: Thresholds = "memory.available<1Gi, nodefs.available<7.5%,pid.available<1000"
            .parse()
            .unwrap();
        let of = |signal| read.of(signal).map(|threshold| threshold.amount);
        assert_eq!(of(Signal::MemoryAvailable), Some(Amount::Fixed(1 << 30)));
        assert_eq!(of(Signal::NodeFsAvailable), Some(Amount::Share(750)));
        assert_eq!(of(Signal::PidAvailable), Some(Amount::Fixed(1000)));
        assert_eq!(of(Signal::ImageFsAvailable), None);
        assert_eq!(Amount::Share(750).of(200), 15);
        assert_eq!(Amount::Share(500).of(i64::MAX), i64::MAX / WHOLE * 500);
    }

    #[test]
    fn what_is_no_threshold_is_refused_with_a_way_out() {
        let error = |text: &str| text.parse::<Thresholds>().unwrap_err().to_string();
        assert_eq!(
            error("memory.available=1Gi"),
            "\"memory.available=1Gi\" is not of the form SIGNAL<AMOUNT, like memory.available<100Mi or nodefs.available<10%"
        );
        assert!(error("cpu.available<1").starts_with("\"cpu.available\" is no eviction signal"));
        for amount in ["", "x", "-1Mi", "101%", "-1%", "1.234%", "%"] {
            assert_eq!(
                error(&format!("nodefs.available<{amount}")),
                format!(
                    "nodefs.available<{amount}: the amount must be a quantity like 100Mi or a percentage between 0% and 100%"
                )
            );
        }
        assert_eq!(
            error("pid.available<1,pid.available<2"),
            "pid.available has two thresholds; say only one"
        );
    }
}
