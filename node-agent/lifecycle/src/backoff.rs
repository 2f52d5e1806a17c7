//! How long a container that ended waits before it is started again.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The first wait; each further one is twice as long.
pub(crate) const FIRST_SECONDS: i64 = 10;
/// No wait is longer than this.
pub(crate) const LONGEST_SECONDS: i64 = 300;
/// A run at least this long after the last restart forgets what was before it.
const FORGET_SECONDS: i64 = 2 * LONGEST_SECONDS;

/// Remembers the last restart of a container and what the next one costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The wait after the next end.
    pub seconds: i64,
    /// When the container was last started again.
    pub restarted_at: Timestamp,
}

impl Backoff {
    /// The state after a restart at `now` of a container that had ended at `finished_at`.
    pub fn after_restart(previous: Option<&Backoff>, finished_at: Timestamp, now: Timestamp) -> Backoff {
        let seconds = match previous {
            Some(backoff) if !backoff.is_forgotten(finished_at) => double(backoff.seconds),
            _ => FIRST_SECONDS,
        };
        Backoff {
            seconds,
            restarted_at: now,
        }
    }

    /// When a container that ended at `finished_at` may start again; none when it may at once.
    pub fn due(&self, finished_at: Timestamp) -> Option<Timestamp> {
        if self.is_forgotten(finished_at) {
            return None;
        }
        Some(later(finished_at, self.seconds))
    }

    fn is_forgotten(&self, finished_at: Timestamp) -> bool {
        finished_at > later(self.restarted_at, FORGET_SECONDS)
    }
}

pub(crate) fn double(seconds: i64) -> i64 {
    (seconds * 2).clamp(FIRST_SECONDS, LONGEST_SECONDS)
}

/// `at` plus `seconds`; the end of time when that is beyond it.
pub(crate) fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(seconds: i64) -> String {
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn waits_double_from_ten_seconds_to_five_minutes() {
        let mut backoff = None;
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let due = backoff
                .as_ref()
                .and_then(|b: &Backoff| b.due(at(now)))
                .unwrap_or(at(now));
            let wait = due.as_second() - at(now).as_second();
            waits.push(wait);
            backoff = Some(Backoff::after_restart(backoff.as_ref(), at(now), due));
            now += wait + 1;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_forget_the_waits() {
        let backoff = Backoff {
            seconds: 300,
            restarted_at: at(0),
        };
        assert_eq!(backoff.due(at(600)), Some(at(900)));
        assert_eq!(backoff.due(at(601)), None);
        assert_eq!(
            Backoff::after_restart(Some(&backoff), at(601), at(601)).seconds,
            10
        );
    }

    #[test]
    fn durations_print_as_go_does() {
        assert_eq!([10, 80, 300].map(go_duration), ["10s", "1m20s", "5m0s"]);
    }
}
