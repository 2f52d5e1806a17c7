//! What clients were told is linearizable, key by key, and over all keys in the order of revisions and of time.

use flotilla_history::History;

/// Checks the operations, watchers left aside.
pub(super) fn check(history: &History) -> Result<(), String> {
    let operations = History {
        operations: history.operations.clone(),
        streams: Vec::new(),
        last: history.last.clone(),
    };
    operations.check().map_err(|violation| violation.to_string())
}
