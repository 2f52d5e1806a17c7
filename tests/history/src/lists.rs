//! Lists against revisions: a list at a revision shows each key as its last change up to then left it.

use std::fmt::Display;

use crate::History;
use crate::changes::Changes;
use crate::operation::{Action, Listing, Outcome};
use crate::stream::Step;
use crate::violation::{Promise, Violation};

/// Checks all lists, those of watchers and the last look among them.
pub(crate) fn check(history: &History, changes: &Changes<'_>) -> Result<(), Violation> {
    for operation in &history.operations {
        if let (Action::List { prefix }, Outcome::Listed(listing)) = (&operation.action, &operation.outcome) {
            check_one(operation, prefix, listing, operation.returned, changes)?;
        }
    }
    for stream in &history.streams {
        for step in &stream.steps {
            if let Step::Listed(listing) = step {
                let who = format!("watcher {}: {step}", stream.watcher);
                check_one(&who, &stream.prefix, listing, u64::MAX, changes)?;
            }
        }
    }
    match &history.last {
        Some(last) => check_one(&"the last look", "", last, u64::MAX, changes),
        None => Ok(()),
    }
}

fn check_one(
    who: &dyn Display,
    prefix: &str,
    listing: &Listing,
    time: u64,
    changes: &Changes<'_>,
) -> Result<(), Violation> {
    let at = listing.revision;
    let wrong = |what: String, excerpt: Vec<String>| {
        let told = std::iter::once(who.to_string()).chain(excerpt);
        Err(Violation::new(Promise::ExactLists, what, told))
    };
    for (key, object) in &listing.objects {
        if !key.starts_with(prefix) || object.revision > at {
            let what = format!("a list of {prefix}* at revision {at} shows {key}={object}");
            return wrong(what, Vec::new());
        }
        if let Some(next) = changes.next(key, object.revision).filter(|next| *next <= at) {
            let change = changes.change(next).map(|change| change.source.to_string());
            let what = format!("a list at revision {at} shows {key}={object}, which was changed at {next}");
            return wrong(what, change.into_iter().collect());
        }
    }
    let missing = changes
        .keys()
        .filter(|key| key.starts_with(prefix) && !listing.objects.contains_key(*key));
    for key in missing {
        let Some((revision, Some(value))) = changes.at(key, at) else {
            continue;
        };
        if !changes.may_be_gone(key, revision, time, at) {
            let change = changes.change(revision).map(|change| change.source.to_string());
            let what = format!("a list at revision {at} does not show {key}={value} at revision {revision}");
            return wrong(what, change.into_iter().collect());
        }
    }
    Ok(())
}
