//! What probes have found, and what follows from it.
//!
//! Running a probe is the agent's work. Here single outcomes are counted against the probe's thresholds until there is
//! a verdict; verdicts are part of the history, so that a restart of the agent keeps ready containers ready.

mod wanted;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use serde::{Deserialize, Serialize};

use crate::history::{ContainerHistory, History};
use crate::notices::Notice;
use crate::rules;

pub use wanted::{WantedProbe, wanted_probes};

/// Kubernetes' defaults, for pods that came past the control plane's.
const PERIOD_SECONDS: i32 = 10;
const TIMEOUT_SECONDS: i32 = 1;
const FAILURE_THRESHOLD: i32 = 3;
const SUCCESS_THRESHOLD: i32 = 1;
/// A container that has never been ready is looked at again after this long, then twice as long, up to its period.
const EARLY: Duration = Duration::from_millis(50);

/// What a probe decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Whether the others may begin.
    Startup,
    /// Whether the container lives on.
    Liveness,
    /// Whether services send it requests.
    Readiness,
}

impl ProbeKind {
    /// The name in events.
    pub fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    /// The container's probe of this kind.
    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What one run of a probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// All is well.
    Success,
    /// All is well, but worth an event.
    Warning(String),
    /// It failed; why, in kubelet's words.
    Failure(String),
    /// The probe itself could not be run, so it counts neither way.
    Unknown(String),
}

/// The verdicts on the newest attempt of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResults {
    /// Of the startup probe.
    pub startup: Tally,
    /// Of the liveness probe.
    pub liveness: Tally,
    /// Of the readiness probe.
    pub readiness: Tally,
}

impl ProbeResults {
    fn of_mut(&mut self, kind: ProbeKind) -> &mut Tally {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        }
    }
}

/// Outcomes counted against thresholds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// What the thresholds say; none until one of them was reached.
    pub verdict: Option<bool>,
    /// The newest outcome.
    pub newest: Option<bool>,
    /// How many like it there were in a row, counted up to the threshold, so that a steady state changes nothing.
    pub in_a_row: i32,
}

impl Tally {
    fn count(&mut self, is_success: bool, probe: &Probe) {
        let threshold = if is_success {
            or_default(probe.success_threshold, SUCCESS_THRESHOLD)
        } else {
            or_default(probe.failure_threshold, FAILURE_THRESHOLD)
        };
        if self.newest != Some(is_success) {
            self.in_a_row = 0;
        }
        self.newest = Some(is_success);
        self.in_a_row = self.in_a_row.saturating_add(1).min(threshold);
        if self.in_a_row >= threshold {
            self.verdict = Some(is_success);
        }
    }
}

fn or_default(value: Option<i32>, default: i32) -> i32 {
    value.filter(|value| *value > 0).unwrap_or(default)
}

fn seconds(value: Option<i32>, default: i32) -> Duration {
    Duration::from_secs(or_default(value, default).unsigned_abs().into())
}

/// The time between two runs of a probe.
pub fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, PERIOD_SECONDS)
}

/// How long a run of a probe may take.
pub fn timeout(probe: &Probe) -> Duration {
    seconds(probe.timeout_seconds, TIMEOUT_SECONDS)
}

/// How long to wait after a run. A container that has never been ready is asked more often than its period says,
/// which Kubernetes allows and which makes it ready sooner; `failures` counts the runs that found it unready so far.
pub fn pause(kind: ProbeKind, probe: &Probe, was_ready: bool, failures: u32) -> Duration {
    let period = period(probe);
    if kind != ProbeKind::Readiness || was_ready || failures == 0 {
        return period;
    }
    let doubled = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
    EARLY.saturating_mul(doubled).min(period)
}

/// Whether the container has passed its startup probe, if it has one.
pub(crate) fn is_started(container: &Container, past: &ContainerHistory) -> bool {
    past.is_up() && (container.startup_probe.is_none() || past.probes.startup.verdict == Some(true))
}

/// Whether the container's probes let requests through to it.
pub(crate) fn is_ready(container: &Container, past: &ContainerHistory) -> bool {
    is_started(container, past)
        && (container.readiness_probe.is_none() || past.probes.readiness.verdict == Some(true))
}

impl History {
    /// Counts what a probe of attempt `id` has found; returns the event that it is worth. Outcomes of other attempts
    /// are old news and change nothing.
    pub fn probed(
        &mut self,
        pod: &Pod,
        name: &str,
        id: &str,
        kind: ProbeKind,
        outcome: &ProbeOutcome,
    ) -> Option<Notice> {
        let (_, container) = rules::containers(pod).find(|(_, container)| container.name == name)?;
        let probe = kind.of(container)?;
        let past = self.containers.get_mut(name)?;
        let is_current = past.is_running() && past.run.as_ref().is_some_and(|run| run.id == id);
        if !is_current || is_settled(kind, &past.probes) {
            return None;
        }
        match outcome {
            ProbeOutcome::Success | ProbeOutcome::Warning(_) => past.probes.of_mut(kind).count(true, probe),
            ProbeOutcome::Failure(_) => past.probes.of_mut(kind).count(false, probe),
            ProbeOutcome::Unknown(_) => {}
        }
        notice(pod, name, kind, outcome)
    }
}

/// Whether the kind's verdict on this attempt is the last one.
fn is_settled(kind: ProbeKind, results: &ProbeResults) -> bool {
    match kind {
        ProbeKind::Startup => results.startup.verdict.is_some(),
        ProbeKind::Liveness => results.liveness.verdict == Some(false),
        ProbeKind::Readiness => false,
    }
}

fn notice(pod: &Pod, container: &str, kind: ProbeKind, outcome: &ProbeOutcome) -> Option<Notice> {
    let kind = kind.name();
    let (reason, message) = match outcome {
        ProbeOutcome::Success => return None,
        ProbeOutcome::Warning(output) => ("ProbeWarning", format!("{kind} probe warning: {output}")),
        ProbeOutcome::Failure(output) => ("Unhealthy", format!("{kind} probe failed: {output}")),
        ProbeOutcome::Unknown(error) => (
            "Unhealthy",
            format!("{kind} probe errored and resulted in unknown state: {error}"),
        ),
    };
    Some(Notice::of_container(pod, container, true, reason, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(fields: &str) -> Probe {
        serde_json::from_str(&format!("{{{fields}}}")).unwrap()
    }

    /// The verdict after each outcome: `+` success, `-` failure.
    fn verdicts(fields: &str, outcomes: &str) -> String {
        let mut tally = Tally::default();
        let probe = probe(fields);
        let verdict = |outcome: char| {
            tally.count(outcome == '+', &probe);
            match tally.verdict {
                None => '?',
                Some(true) => '+',
                Some(false) => '-',
            }
        };
        outcomes.chars().map(verdict).collect()
    }

    #[test]
    fn thresholds_must_be_reached_in_a_row() {
        for (fields, outcomes, expected) in [
            ("", "+", "+"),
            ("", "--+---", "??+++-"),
            (r#""failureThreshold":1"#, "+-+", "+-+"),
            (
                r#""successThreshold":2,"failureThreshold":2"#,
                "+-++-+--",
                "???++++-",
            ),
            (r#""successThreshold":3"#, "---+++", "??---+"),
        ] {
            assert_eq!(verdicts(fields, outcomes), expected, "{fields} {outcomes}");
        }
    }

    #[test]
    fn a_steady_state_changes_nothing() {
        let mut tally = Tally::default();
        let probe = probe("");
        (0..3).for_each(|_| tally.count(false, &probe));
        let before = tally.clone();
        tally.count(false, &probe);
        assert_eq!(tally, before);
    }

    #[test]
    fn a_container_that_was_never_ready_is_asked_more_often() {
        let probe = probe(r#""periodSeconds":1"#);
        let millis = |kind, was_ready, failures| pause(kind, &probe, was_ready, failures).as_millis();
        let early: Vec<_> = (0..8).map(|n| millis(ProbeKind::Readiness, false, n)).collect();
        assert_eq!(early, [1000, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(millis(ProbeKind::Readiness, true, 3), 1000);
        assert_eq!(millis(ProbeKind::Liveness, false, 3), 1000);
        assert_eq!(millis(ProbeKind::Readiness, false, 99), 1000);
    }
}
