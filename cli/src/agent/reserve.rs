//! What of a node pods may not have, in kubelet's flags.

use flotilla_agent::{ParseReservationError, ParseThresholdError, Reservation, Reserve, Thresholds};

use crate::wait::parse_duration;

/// Kubelet's `--eviction-pressure-transition-period`.
const TRANSITION: &str = "5m";

/// Flags about the node's resources.
#[derive(Debug, clap::Args)]
pub(crate) struct ReserveArgs {
    /// What the system's own daemons need, as in cpu=200m,memory=500Mi.
    #[arg(long, value_name = "RESOURCE=AMOUNT,…", default_value = "", value_parser = reservation)]
    system_reserved: Reservation,
    /// What the agent and its shims need.
    #[arg(long, value_name = "RESOURCE=AMOUNT,…", default_value = "", value_parser = reservation)]
    kube_reserved: Reservation,
    /// When pods are evicted, as in memory.available<100Mi,nodefs.available<10%; empty: never. By default as kubelet.
    #[arg(long, value_name = "SIGNAL<AMOUNT,…", value_parser = thresholds)]
    eviction_hard: Option<Thresholds>,
    /// How long a condition such as MemoryPressure outlasts its cause.
    #[arg(long, value_name = "DURATION", default_value = TRANSITION)]
    eviction_pressure_transition_period: String,
}

fn reservation(text: &str) -> Result<Reservation, ParseReservationError> {
    text.parse()
}

fn thresholds(text: &str) -> Result<Thresholds, ParseThresholdError> {
    text.parse()
}

impl ReserveArgs {
    /// How the node's capacity is divided.
    pub(crate) fn reserve(&self) -> Reserve {
        Reserve {
            system: self.system_reserved.clone(),
            kube: self.kube_reserved.clone(),
            eviction_hard: self.eviction_hard.clone().unwrap_or_default(),
        }
    }

    /// How long a condition outlasts its measurement.
    pub(crate) fn transition(&self) -> anyhow::Result<std::time::Duration> {
        Ok(parse_duration(&self.eviction_pressure_transition_period)?.unwrap_or_default())
    }
}
