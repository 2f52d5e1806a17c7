//! No acknowledged write is lost: in the end every replica has it, or a later change of the same key.

use flotilla_history::{Action, History, Outcome};
use flotilla_store::Snapshot;

use crate::objects;

/// Checks the last state of one replica.
pub(super) fn check(member: u64, state: &Snapshot, history: &History) -> Result<(), String> {
    for operation in &history.operations {
        let Outcome::Written(Some(revision)) = operation.outcome else {
            continue;
        };
        let is_kept = match &operation.action {
            Action::Put { key, .. } => match state.get(&objects::key(key)) {
                Some(object) => object.modified.0 >= revision.0,
                None => history
                    .operations
                    .iter()
                    .any(|other| may_have_removed(other, key, revision.0)),
            },
            Action::Delete { key, .. } => {
                let object = state.get(&objects::key(key));
                object.is_none_or(|object| object.created.0 > revision.0)
            }
            Action::Get { .. } | Action::List { .. } => true,
        };
        if !is_kept {
            return Err(format!(
                "no lost write: member {member}, at revision {}, does not have: {operation}",
                state.revision()
            ));
        }
    }
    Ok(())
}

fn may_have_removed(operation: &flotilla_history::Operation, key: &str, written: u64) -> bool {
    let Action::Delete { key: removed, .. } = &operation.action else {
        return false;
    };
    *removed == key
        && match operation.outcome {
            Outcome::Written(revision) => revision.is_none_or(|revision| revision.0 > written),
            Outcome::Unknown => true,
            _ => false,
        }
}
