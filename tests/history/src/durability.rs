//! Acknowledged writes against what is there in the end.

use crate::History;
use crate::changes::Changes;
use crate::operation::{Action, Listing, Operation, Outcome, Revision};
use crate::violation::{Promise, Violation};

/// Checks that the last look shows every acknowledged write, or a later one of the same key.
pub(crate) fn check(history: &History, changes: &Changes<'_>) -> Result<(), Violation> {
    let Some(last) = &history.last else {
        return Ok(());
    };
    for operation in &history.operations {
        let Outcome::Written(Some(revision)) = operation.outcome else {
            continue;
        };
        let lost = match &operation.action {
            Action::Put { key, .. } => lost_object(key, revision, last, changes),
            Action::Delete { key, .. } => returned_object(key, revision, last),
            Action::Get { .. } | Action::List { .. } => None,
        };
        if let Some(what) = lost {
            return Err(violation(what, operation, last));
        }
    }
    Ok(())
}

fn violation(what: String, operation: &Operation, last: &Listing) -> Violation {
    let look = format!("the last look, at revision {}", last.revision);
    Violation::new(Promise::Durable, what, [operation.to_string(), look])
}

fn lost_object(key: &str, written: Revision, last: &Listing, changes: &Changes<'_>) -> Option<String> {
    match last.objects.get(key) {
        Some(object) if object.revision >= written => None,
        Some(object) => Some(format!("an acknowledged write was lost: {key} is {object} again")),
        None => {
            let is_gone = changes.is_removed_after(key, written)
                || changes.may_be_gone(key, written, u64::MAX, last.revision);
            (!is_gone).then(|| format!("an acknowledged write was lost: {key} is not there"))
        }
    }
}

fn returned_object(key: &str, removed: Revision, last: &Listing) -> Option<String> {
    let object = last.objects.get(key)?;
    (object.revision < removed).then(|| format!("an acknowledged deletion was lost: {key} is {object} again"))
}
