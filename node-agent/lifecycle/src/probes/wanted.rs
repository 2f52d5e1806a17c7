//! Which probes are to run now.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Probe};

use super::{ProbeKind, is_settled, is_started};
use crate::backoff::later;
use crate::handlers::{Check, HandlerError, probe_check};
use crate::history::History;
use crate::rules::{self, Role};

/// A probe that is to run for as long as it is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedProbe {
    /// The container's name.
    pub container: String,
    /// The attempt, by the runtime's name of it.
    pub id: String,
    /// What it decides about.
    pub kind: ProbeKind,
    /// Period, timeout, thresholds.
    pub probe: Probe,
    /// What to do, or why that cannot be known.
    pub check: Result<Check, HandlerError>,
    /// Not before `initialDelaySeconds` have passed since the container's start.
    pub not_before: Timestamp,
    /// The verdict of the readiness probe so far is that it is ready.
    pub was_ready: bool,
}

/// The probes of a pod that are to run now.
///
/// The startup probe holds the others back. A container that is being stopped is only asked whether it is still ready,
/// for as long as its pod ends as a whole; one that is to be replaced is not asked at all.
pub fn wanted_probes(pod: &Pod, history: &History, host_addresses: &[std::net::IpAddr]) -> Vec<WantedProbe> {
    let mut wanted = Vec::new();
    let is_ending = history.stopping_since.is_some() || pod.metadata.deletion_timestamp.is_some();
    for (role, container) in rules::containers(pod) {
        let Some(past) = history.containers.get(&container.name) else {
            continue;
        };
        if role == Role::Init || !past.is_up() || past.stopping.is_some() {
            continue;
        }
        let Some(run) = &past.run else { continue };
        for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
            let Some(probe) = kind.of(container) else { continue };
            let is_its_turn = (kind == ProbeKind::Startup) != is_started(container, past);
            if !is_its_turn || is_settled(kind, &past.probes) || (is_ending && kind != ProbeKind::Readiness) {
                continue;
            }
            wanted.push(WantedProbe {
                container: container.name.clone(),
                id: run.id.clone(),
                kind,
                check: probe_check(pod, container, probe, &history.addresses, host_addresses),
                probe: probe.clone(),
                not_before: later(
                    run.started_at,
                    i64::from(probe.initial_delay_seconds.unwrap_or(0)),
                ),
                was_ready: past.probes.readiness.verdict == Some(true),
            });
        }
    }
    wanted
}
