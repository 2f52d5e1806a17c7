//! Chance that a seed repeats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A sequence that its seed decides (xorshift).
pub struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// The sequence of the seed in an environment variable, or of the clock.
    pub fn seeded_by(variable: &str) -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = number(variable).unwrap_or_else(|| u64::from(clock().subsec_nanos()));
        let seed = seed.max(1);
        Self { seed, state: seed }
    }

    /// What repeats the sequence.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state % limit as u64).expect("it is below a usize")
    }

    /// One of a list.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        (!list.is_empty()).then(|| &list[self.below(list.len())])
    }

    /// A time shorter than a limit.
    pub fn pause(&mut self, limit: Duration) -> Duration {
        let milliseconds = usize::try_from(limit.as_millis()).unwrap_or(usize::MAX);
        Duration::from_millis(self.below(milliseconds.max(1)) as u64)
    }
}

/// The number in an environment variable, if it is set to one.
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
