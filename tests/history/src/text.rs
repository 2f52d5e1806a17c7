//! Histories as text, for tests: one operation, stream or last look per line.
//!
//! ```text
//! 1 0-10 create a=x -> @1
//! 2 5-15 replace a=y at 1 -> refused x@1
//! 1 20-30 get a -> nothing
//! watch w *: from 0, added a=x@1, bookmark 5, listed @7 a=z@6, through 9
//! last @9 a=z@6
//! ```

use crate::History;
use crate::operation::{Action, Found, Listing, Object, Operation, Outcome, Require, Revision};
use crate::stream::{Event, Kind, Step, Stream};

impl History {
    /// Reads a history; a test with a line that is not one fails.
    pub(crate) fn parse(text: &str) -> Self {
        let mut history = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_once(' ').unwrap() {
                ("last", rest) => history.last = Some(listing(rest)),
                ("watch", rest) => history.streams.push(stream(rest)),
                (client, rest) => history.operations.push(operation(client, rest)),
            }
        }
        history
    }
}

fn operation(client: &str, rest: &str) -> Operation {
    let (asked, answered) = rest.split_once(" -> ").unwrap();
    let (times, asked) = asked.split_once(' ').unwrap();
    let (invoked, returned) = times.split_once('-').unwrap();
    let action = action(asked);
    Operation {
        client: client.parse().unwrap(),
        invoked: invoked.parse().unwrap(),
        returned: returned.parse().unwrap(),
        outcome: outcome(&action, answered),
        action,
    }
}

fn action(text: &str) -> Action {
    let words: Vec<&str> = text.split(' ').collect();
    let at = |words: &[&str]| match words {
        [] => Require::Present,
        ["anyway"] => Require::Anything,
        ["at", revision] => Require::At(number(revision)),
        _ => panic!("{text}"),
    };
    let put = |written: &str, require| {
        let (key, value) = written.split_once('=').unwrap();
        Action::Put {
            key: key.to_owned(),
            value: value.to_owned(),
            require,
        }
    };
    match words[0] {
        "create" => put(words[1], Require::Absent),
        "put" => put(words[1], Require::Anything),
        "replace" => put(words[1], at(&words[2..])),
        "delete" => Action::Delete {
            key: words[1].to_owned(),
            require: at(&words[2..]),
        },
        "get" => Action::Get {
            key: words[1].to_owned(),
        },
        "list" => Action::List {
            prefix: words[1].trim_end_matches('*').to_owned(),
        },
        _ => panic!("{text}"),
    }
}

fn outcome(action: &Action, text: &str) -> Outcome {
    match (action, text) {
        (_, "unknown") => Outcome::Unknown,
        (_, "failed") => Outcome::Failed,
        (_, "unchanged") => Outcome::Unchanged,
        (_, "done") => Outcome::Written(None),
        (_, "refused") => Outcome::Refused(Found::Untold),
        (_, "refused nothing") => Outcome::Refused(Found::Nothing),
        (_, "refused something") => Outcome::Refused(Found::Something),
        (_, "nothing") => Outcome::Read(None),
        (Action::Get { .. }, shown) => Outcome::Read(Some(object(shown))),
        (Action::List { .. }, shown) => Outcome::Listed(listing(shown)),
        (_, text) => match text.strip_prefix("refused ") {
            Some(found) => Outcome::Refused(Found::Object(object(found))),
            None => Outcome::Written(Some(number(text.strip_prefix('@').unwrap()))),
        },
    }
}

fn stream(text: &str) -> Stream {
    let (name, steps) = text.split_once(": ").unwrap();
    let (watcher, prefix) = name.split_once(' ').unwrap();
    let mut stream = Stream {
        watcher: watcher.to_owned(),
        prefix: prefix.trim_end_matches('*').to_owned(),
        steps: Vec::new(),
        through: None,
    };
    for step in steps.split(", ") {
        let (word, rest) = step.split_once(' ').unwrap();
        stream.steps.push(match word {
            "from" => Step::Follows(number(rest)),
            "bookmark" => Step::Bookmark(number(rest)),
            "listed" => Step::Listed(listing(rest)),
            "added" => event(Kind::Added, rest),
            "modified" => event(Kind::Modified, rest),
            "deleted" => event(Kind::Deleted, rest),
            "through" => {
                stream.through = Some(number(rest));
                continue;
            }
            _ => panic!("{step}"),
        });
    }
    stream
}

fn event(kind: Kind, text: &str) -> Step {
    let (key, shown) = text.split_once('=').unwrap();
    let Object { value, revision } = object(shown);
    Step::Event(Event {
        kind,
        key: key.to_owned(),
        value,
        revision,
    })
}

/// `@5 a=x@1 b=y@2`.
fn listing(text: &str) -> Listing {
    let mut words = text.split(' ');
    let revision = number(words.next().unwrap().strip_prefix('@').unwrap());
    let objects = words.map(|word| {
        let (key, shown) = word.split_once('=').unwrap();
        (key.to_owned(), object(shown))
    });
    Listing {
        revision,
        objects: objects.collect(),
    }
}

/// `x@1`.
fn object(text: &str) -> Object {
    let (value, revision) = text.split_once('@').unwrap();
    Object {
        value: value.to_owned(),
        revision: number(revision),
    }
}

fn number(text: &str) -> Revision {
    Revision(text.parse().unwrap())
}
