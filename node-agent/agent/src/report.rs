//! The only way of an error into a log or a message.

use std::error::Error;
use std::fmt::Write;

/// The error and its causes in one line.
pub(crate) fn report(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(line, ": {cause}");
        source = cause.source();
    }
    line
}
