//! Watch streams equal the committed history from the revision that they start at.

use flotilla_history::{History, Promise};

/// Checks the streams against all that anybody saw.
pub(super) fn check(history: &History) -> Result<(), String> {
    match history.check() {
        Err(violation) if violation.promise == Promise::CompleteWatches => Err(violation.to_string()),
        // Another promise is for another check.
        _ => Ok(()),
    }
}
