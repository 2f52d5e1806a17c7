//! Linearizability, key by key: is there one order of the operations, each at some moment between its call and its
//! answer, that explains every answer?
//!
//! The search is Wing and Gong's with the states that were seen remembered (Lowe's refinement, as in Porcupine), and four
//! facts of our store keep it short, on right histories and on wrong ones:
//! - an answer that changes nothing and fits is taken at once: whatever can come after it could also come without it;
//! - writes whose revision is known are taken in the order of revisions;
//! - a write of unknown outcome whose value somebody saw did happen, before that;
//! - writes of unknown outcome whose value nobody saw are all alike but for what they demand, so the oldest of each sort
//!   stands for all.

mod model;
mod search;

use std::collections::BTreeMap;

use crate::History;
use crate::changes::Changes;
use crate::operation::{Action, Found, Object, Operation, Outcome, Require};
use crate::violation::Violation;
use model::{Effect, Step, What};

/// Checks each key's operations; a list counts as a get of each key that it covers.
pub(crate) fn check(history: &History, changes: &Changes<'_>) -> Result<(), Violation> {
    let mut keys: BTreeMap<&str, Vec<Step<'_>>> = BTreeMap::new();
    for operation in &history.operations {
        if let Some((key, step)) = step(operation, changes) {
            keys.entry(key).or_default().push(step);
        }
    }
    for operation in &history.operations {
        if let (Action::List { prefix }, Outcome::Listed(listing)) = (&operation.action, &operation.outcome) {
            let covered = keys
                .iter_mut()
                .filter(|(key, _)| key.starts_with(prefix.as_str()));
            for (key, steps) in covered {
                let what = What::Read(listing.objects.get(*key));
                steps.push(Step::mandatory(operation, operation.returned, what));
            }
        }
    }
    for (key, mut steps) in keys {
        observe(&mut steps);
        if let Some(last) = &history.last {
            steps.push(Step::last(last.objects.get(key)));
        }
        search::search(key, steps)?;
    }
    Ok(())
}

/// What an operation on one key means for the search; none when it means nothing.
fn step<'a>(operation: &'a Operation, changes: &Changes<'a>) -> Option<(&'a str, Step<'a>)> {
    let (key, require, effect) = match &operation.action {
        Action::Put { key, value, require } => (key, *require, Effect::Put(value)),
        Action::Delete { key, require } => (key, *require, Effect::Delete),
        Action::Get { key } => {
            let Outcome::Read(found) = &operation.outcome else {
                return None;
            };
            let what = What::Read(found.as_ref());
            return Some((key, Step::mandatory(operation, operation.returned, what)));
        }
        Action::List { .. } => return None,
    };
    let date = match effect {
        Effect::Put(value) => changes.date(key, value),
        Effect::Delete => None,
    };
    let write = |revision| What::Write {
        require,
        effect,
        revision,
    };
    let step = match &operation.outcome {
        Outcome::Written(revision) => {
            Step::mandatory(operation, operation.returned, write(revision.or(date)))
        }
        Outcome::Unknown if date.is_some() => Step::mandatory(operation, u64::MAX, write(date)),
        Outcome::Unknown => Step::optional(operation, write(None)),
        Outcome::Unchanged => {
            let refused = What::Refused(Require::Present, &Found::Nothing);
            Step::mandatory(operation, operation.returned, refused)
        }
        Outcome::Refused(found) => {
            Step::mandatory(operation, operation.returned, What::Refused(require, found))
        }
        Outcome::Failed | Outcome::Read(_) | Outcome::Listed(_) => return None,
    };
    Some((key, step))
}

/// A write that somebody read was done by then, whatever its own client was told.
fn observe(steps: &mut [Step<'_>]) {
    let mut read_at: BTreeMap<&str, u64> = BTreeMap::new();
    for step in steps.iter() {
        if let What::Read(Some(Object { value, .. }))
        | What::Refused(_, Found::Object(Object { value, .. })) = step.what
        {
            let time = read_at.entry(value).or_insert(u64::MAX);
            *time = step.ended.min(*time);
        }
    }
    for step in steps {
        if let What::Write {
            effect: Effect::Put(value),
            ..
        } = step.what
        {
            let read = read_at.get(value).copied().unwrap_or(u64::MAX);
            step.ended = step.ended.min(read);
        }
    }
}
