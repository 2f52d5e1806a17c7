//! What came of a run.

use std::fmt;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed that decided everything.
    pub seed: u64,
    /// A sum over all that happened; two runs of a seed have the same.
    pub sum: u64,
    /// How long it took, in the run's own time.
    pub virtual_ms: u64,
    /// How many things went wrong.
    pub faults: u64,
    /// How many operations clients made.
    pub operations: usize,
}

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The run until then.
    pub report: Report,
    /// What was violated.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seed, virtual_ms, .. } = self.report;
        write!(
            out,
            "seed {seed}, at {virtual_ms} ms: {}\nReplay it with: cargo run -p flotilla-sim -- --seeds {seed} --trace",
            self.what
        )
    }
}

impl std::error::Error for Failure {}
