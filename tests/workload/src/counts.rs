//! What a history holds, as figures.

use std::fmt;

use flotilla_history::{Action, History, Outcome, Step};

/// How much of what a history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes that were refused.
    pub refused: usize,
    /// Writes of unknown outcome.
    pub unknown: usize,
    /// Gets and lists that were answered.
    pub reads: usize,
    /// Operations that failed without effect.
    pub failed: usize,
    /// Events of all watchers.
    pub events: usize,
    /// Times that a watcher went on over a new connection.
    pub resumed: usize,
    /// Times that a watcher listed because its revision had expired.
    pub relisted: usize,
}

impl Counts {
    /// Counts.
    pub fn of(history: &History) -> Self {
        let mut counts = Self::default();
        for operation in &history.operations {
            let is_read = matches!(operation.action, Action::Get { .. } | Action::List { .. });
            let counter = match operation.outcome {
                Outcome::Written(_) | Outcome::Unchanged => &mut counts.acknowledged,
                Outcome::Refused(_) => &mut counts.refused,
                Outcome::Read(_) | Outcome::Listed(_) => &mut counts.reads,
                Outcome::Unknown if !is_read => &mut counts.unknown,
                Outcome::Unknown | Outcome::Failed => &mut counts.failed,
            };
            *counter += 1;
        }
        for stream in &history.streams {
            let count = |wanted: fn(&Step) -> bool| stream.steps.iter().filter(|step| wanted(step)).count();
            counts.events += count(|step| matches!(step, Step::Event(_)));
            // Each list is followed by a watch from it, which resumes nothing; the first list expires nothing.
            let lists = count(|step| matches!(step, Step::Listed(_)));
            counts.relisted += lists.saturating_sub(1);
            counts.resumed += count(|step| matches!(step, Step::Follows(_))).saturating_sub(lists);
        }
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            acknowledged,
            refused,
            unknown,
            reads,
            failed,
            events,
            resumed,
            relisted,
        } = self;
        write!(
            out,
            "{acknowledged} writes acknowledged, {refused} refused, {unknown} unknown, {reads} reads, {failed} failed; \
             {events} events, {resumed} streams resumed, {relisted} lists after 410"
        )
    }
}
