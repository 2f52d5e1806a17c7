//! What of a node's capacity pods may have: reservations, eviction thresholds, and what is left.
//!
//! The words are kubelet's: `--system-reserved`, `--kube-reserved`, `--eviction-hard`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use flotilla_api::quantity::{Quantity, QuantityField};

use crate::pressure::{Signal, Thresholds};
use crate::resources::Quantities;

/// The resources that can be set aside.
const RESERVABLE: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];
const HUGE_PAGES: &str = "hugepages-";

/// Amounts that are kept back from pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservation {
    amounts: BTreeMap<String, Quantity>,
}

/// Why a reservation cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReservationError {
    /// Not `name=amount`.
    #[error("{0:?} is not of the form RESOURCE=AMOUNT, like memory=500Mi")]
    Form(String),
    /// A resource that cannot be set aside.
    #[error("cannot reserve {0:?}: only cpu, memory, ephemeral-storage and pid can be reserved")]
    Resource(String),
    /// Not an amount, or less than nothing.
    #[error("{resource}={amount:?}: the amount must be a quantity of at least 0, like 200m or 500Mi")]
    Amount {
        /// Of what.
        resource: String,
        /// What stands there.
        amount: String,
    },
}

impl FromStr for Reservation {
    type Err = ParseReservationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut amounts = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, amount) = part
                .split_once('=')
                .ok_or_else(|| ParseReservationError::Form(part.to_owned()))?;
            if !RESERVABLE.contains(&name) {
                return Err(ParseReservationError::Resource(name.to_owned()));
            }
            let parsed = Quantity::parse(amount)
                .ok()
                .filter(|parsed| !parsed.is_negative());
            let parsed = parsed.ok_or_else(|| ParseReservationError::Amount {
                resource: name.to_owned(),
                amount: amount.to_owned(),
            })?;
            amounts.insert(name.to_owned(), parsed);
        }
        Ok(Self { amounts })
    }
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self
            .amounts
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect();
        f.write_str(&parts.join(","))
    }
}

/// How a node's capacity is divided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserve {
    /// For the system's own daemons.
    pub system: Reservation,
    /// For the agent and its shims.
    pub kube: Reservation,
    /// When pods are evicted.
    pub eviction_hard: Thresholds,
}

impl Reserve {
    /// Whether anything but the thresholds is kept back.
    pub fn is_reserved(&self, resource: &str) -> bool {
        self.set_aside(resource, Quantity::value) > 0
    }

    fn set_aside(&self, resource: &str, count: fn(Quantity) -> i64) -> i64 {
        let of = |reservation: &Reservation| reservation.amounts.get(resource).copied().map_or(0, count);
        of(&self.system).saturating_add(of(&self.kube))
    }

    /// What pods may have of `capacity`.
    pub fn allocatable(&self, capacity: &Quantities) -> Quantities {
        let huge: i64 = capacity
            .iter()
            .filter(|(name, _)| name.starts_with(HUGE_PAGES))
            .filter_map(|(name, _)| Quantity::get(Some(capacity), name).map(Quantity::value))
            .sum();
        let mut allocatable = capacity.clone();
        for (name, field) in &mut allocatable {
            let Some(all) = Quantity::of(field) else { continue };
            match name.as_str() {
                "cpu" => {
                    let kept = self.set_aside("cpu", Quantity::milli);
                    if kept > 0 {
                        *field = milli(all.milli() - kept);
                    }
                }
                "memory" => {
                    let kept = self.set_aside("memory", Quantity::value)
                        + self.threshold(Signal::MemoryAvailable, all.value())
                        + huge;
                    *field = kibibytes(all.value() - kept);
                }
                "ephemeral-storage" => {
                    let kept = self.set_aside("ephemeral-storage", Quantity::value)
                        + self.threshold(Signal::NodeFsAvailable, all.value());
                    *field = QuantityField((all.value() - kept).max(0).to_string());
                }
                _ => {}
            }
        }
        allocatable
    }

    fn threshold(&self, signal: Signal, capacity: i64) -> i64 {
        self.eviction_hard
            .of(signal)
            .map_or(0, |threshold| threshold.amount.of(capacity))
    }

    /// The most memory that all pods together may use: everything but what is reserved. Pressure below that is the
    /// business of evictions, not of the kernel.
    pub fn pods_memory_limit(&self, capacity: &Quantities) -> Option<i64> {
        let kept = self.set_aside("memory", Quantity::value);
        let all = Quantity::get(Some(capacity), "memory")?.value();
        (kept > 0).then(|| (all - kept).max(0))
    }
}

fn milli(amount: i64) -> QuantityField {
    Quantity::from_milli(amount.max(0)).to_field()
}

fn kibibytes(bytes: i64) -> QuantityField {
    QuantityField(format!("{}Ki", bytes.max(0) >> 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity() -> Quantities {
        let list = [
            ("cpu", "2"),
            ("memory", "2097152Ki"),
            ("ephemeral-storage", "100Gi"),
            ("hugepages-2Mi", "64Mi"),
            ("pods", "110"),
        ];
        list.map(|(name, amount)| (name.to_owned(), QuantityField(amount.to_owned())))
            .into()
    }

    fn allocatable(system: &str, kube: &str, eviction: &str) -> String {
        let reserve = Reserve {
            system: system.parse().unwrap(),
            kube: kube.parse().unwrap(),
            eviction_hard: eviction.parse().unwrap(),
        };
        let found = reserve.allocatable(&capacity());
        let parts: Vec<String> = found
            .iter()
            .map(|(name, amount)| format!("{name}={}", amount.0))
            .collect();
        parts.join(" ")
    }

    #[test]
    fn pods_may_have_what_is_not_kept_back() {
        assert_eq!(
            allocatable("", "", "memory.available<100Mi,nodefs.available<10%"),
            "cpu=2 ephemeral-storage=96636764160 hugepages-2Mi=64Mi memory=1929216Ki pods=110"
        );
        assert_eq!(
            allocatable("cpu=200m,memory=200Mi", "cpu=300m,ephemeral-storage=1Gi", ""),
            "cpu=1500m ephemeral-storage=106300440576 hugepages-2Mi=64Mi memory=1826816Ki pods=110"
        );
        assert_eq!(
            allocatable("cpu=8,memory=8Gi", "", ""),
            "cpu=0 ephemeral-storage=107374182400 hugepages-2Mi=64Mi memory=0Ki pods=110"
        );
    }

    #[test]
    fn pods_together_are_limited_only_when_memory_is_reserved() {
        let with = |system: &str| Reserve {
            system: system.parse().unwrap(),
            ..Reserve::default()
        };
        assert_eq!(with("cpu=1").pods_memory_limit(&capacity()), None);
        assert_eq!(with("memory=1Gi").pods_memory_limit(&capacity()), Some(1 << 30));
    }

    #[test]
    fn what_cannot_be_reserved_is_named() {
        let error = |text: &str| text.parse::<Reservation>().unwrap_err().to_string();
        assert_eq!(
            error("cpu"),
            "\"cpu\" is not of the form RESOURCE=AMOUNT, like memory=500Mi"
        );
        assert_eq!(
            error("gpu=1"),
            "cannot reserve \"gpu\": only cpu, memory, ephemeral-storage and pid can be reserved"
        );
        assert_eq!(
            error("cpu=-1"),
            "cpu=\"-1\": the amount must be a quantity of at least 0, like 200m or 500Mi"
        );
        let reservation: Reservation = "memory=1Gi, cpu=1".parse().unwrap();
        assert_eq!(reservation.to_string(), "cpu=1,memory=1Gi");
    }
}
