//! The only way of an error into a log.
//!
//! Messages of errors leave out their sources, so a log line that shows the message alone hides the cause.

use std::error::Error;

/// An error with all of its causes in one line, without repeating those that are only passed through.
pub fn report(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|source| source as _)
        }
    }

    fn chain(messages: &[&'static str]) -> String {
        let error = messages
            .iter()
            .rev()
            .fold(None, |source, message| Some(Layer(message, source.map(Box::new))));
        report(&error.unwrap())
    }

    #[test]
    fn every_cause_is_told_once() {
        assert_eq!(chain(&["cannot start"]), "cannot start");
        assert_eq!(
            chain(&["cannot start", "no disk", "full"]),
            "cannot start: no disk: full"
        );
        assert_eq!(chain(&["no disk", "no disk", "full"]), "no disk: full");
    }
}
