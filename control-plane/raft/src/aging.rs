//! Forgets watch history by age.
//!
//! The store knows no clock: this task notes from time to time which revision it has, and tells it when what came up to
//! there has become old. Each replica does so for itself; a watcher may find a change gone on one a moment earlier
//! than on another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use flotilla_store::Revision;
use tokio::time::Instant;

use crate::shared::Shared;

/// So often in its life an event's age is looked at: it is kept by so much of the limit longer, at most.
const LOOKS: u32 = 16;

/// Which revision the store had when.
struct Ages {
    age_max: Duration,
    marks: VecDeque<(Instant, Revision)>,
}

impl Ages {
    fn new(age_max: Duration) -> Ages {
        Ages {
            age_max,
            marks: VecDeque::new(),
        }
    }

    /// Notes the revision of now; answers the newest that is old.
    fn observe(&mut self, now: Instant, revision: Revision) -> Option<Revision> {
        if self.marks.back().is_none_or(|(_, last)| *last < revision) {
            self.marks.push_back((now, revision));
        }
        let mut old = None;
        while let Some((_, revision)) = self
            .marks
            .pop_front_if(|(since, _)| now.duration_since(*since) >= self.age_max)
        {
            old = Some(revision);
        }
        old
    }
}

/// Forgets what is older than `age_max`, until the replica stops.
pub(crate) async fn forget_old(shared: Arc<Shared>, age_max: Duration) {
    let mut ages = Ages::new(age_max);
    loop {
        tokio::select! {
            biased;
            // Both arms only wake the loop.
            () = shared.closed.cancelled() => return,
            () = tokio::time::sleep(age_max / LOOKS) => {}
        }
        if let Some(old) = ages.observe(Instant::now(), shared.snapshot().revision()) {
            shared.forget_events(old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_long_enough_is_old_and_nothing_newer() {
        let start = Instant::now();
        let mut ages = Ages::new(Duration::from_secs(60));
        let mut observe =
            |seconds, revision| ages.observe(start + Duration::from_secs(seconds), Revision(revision));
        assert_eq!(observe(0, 10), None);
        assert_eq!(observe(20, 10), None);
        assert_eq!(observe(40, 15), None);
        assert_eq!(observe(60, 20), Some(Revision(10)));
        assert_eq!(observe(80, 20), None);
        // It was not looked at for long.
        assert_eq!(observe(130, 30), Some(Revision(20)));
        assert_eq!(observe(190, 30), Some(Revision(30)));
        assert_eq!(observe(300, 30), None);
    }
}
