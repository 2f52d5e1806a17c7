//! What of a node pods may not have, in kubelet's flags.

use flotilla_agent::{ParseReservationError, ParseThresholdError, Permits, Reservation, Reserve, Thresholds};

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
    /// How many processes and threads a pod may have at once; -1: as many as the node.
    #[arg(long, value_name = "NUMBER", default_value_t = -1, allow_negative_numbers = true)]
    pod_max_pids: i64,
    /// Kernel parameters that pods may set besides those that are safe, separated by commas; kernel.msg* means all that
    /// begin so.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    allowed_unsafe_sysctls: Vec<String>,
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

    /// What pods are let have.
    pub(crate) fn permits(&self) -> Permits {
        Permits {
            pids_max: Some(self.pod_max_pids).filter(|pids| *pids > 0),
            unsafe_sysctls: self.allowed_unsafe_sysctls.clone(),
        }
    }

    /// How long a condition outlasts its measurement.
    pub(crate) fn transition(&self) -> anyhow::Result<std::time::Duration> {
        Ok(parse_duration(&self.eviction_pressure_transition_period)?.unwrap_or_default())
    }
}
