//! Everything that the client verbs print: the only place of this binary that writes to its streams.
//!
//! Formats are kubectl's, to the byte where people or scripts rely on it.

pub(crate) mod age;
pub(crate) mod columns;
pub(crate) mod error;
pub(crate) mod jsonpath;
pub(crate) mod name;
pub(crate) mod object;
pub(crate) mod table;
pub(crate) mod tabwriter;
pub(crate) mod yaml;

use std::io::Write;

/// Writes text to standard output as it is.
pub(crate) fn text(text: &str) {
    write_or_leave(&mut std::io::stdout().lock(), text.as_bytes());
}

/// Writes bytes to standard output as they are.
pub(crate) fn bytes(bytes: &[u8]) {
    write_or_leave(&mut std::io::stdout().lock(), bytes);
}

/// Writes one line to standard output.
pub(crate) fn line(line: impl AsRef<str>) {
    text(&format!("{}\n", line.as_ref()));
}

/// Writes one line to standard error.
pub(crate) fn error_line(line: impl AsRef<str>) {
    let text = format!("{}\n", line.as_ref());
    // Nothing is left to tell anyone when standard error is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// A reader that goes away (`| head`) ends the command quietly, as it ends every other Unix tool.
fn write_or_leave(stream: &mut impl Write, bytes: &[u8]) {
    if stream.write_all(bytes).and_then(|()| stream.flush()).is_err() {
        std::process::exit(1);
    }
}
