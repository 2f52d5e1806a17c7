//! Strict serializability: revisions are one order of all changes, and it must agree with real time.
//!
//! Whoever was told of a revision has been there: what is asked afterwards, of any key, must be done later (a write) or
//! see at least that much (a read). One pass over the operations by time.

use crate::History;
use crate::changes::Changes;
use crate::operation::{Action, Operation, Outcome, Revision};
use crate::violation::{Promise, Violation};

/// Simultaneous is not before: at equal times, what begins comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Invoked,
    Returned,
}

/// Checks the order of revisions against the order of time.
pub(crate) fn check(history: &History, changes: &Changes<'_>) -> Result<(), Violation> {
    let mut edges: Vec<(u64, Edge, &Operation)> = Vec::with_capacity(history.operations.len() * 2);
    for operation in &history.operations {
        edges.push((operation.invoked, Edge::Invoked, operation));
        edges.push((operation.returned, Edge::Returned, operation));
    }
    edges.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    let mut newest: Option<(Revision, &Operation)> = None;
    for (_, edge, operation) in edges {
        match (edge, newest) {
            (Edge::Invoked, None) => {}
            (Edge::Invoked, Some((revision, told))) => check_one(operation, revision, told, changes)?,
            (Edge::Returned, _) => {
                let seen = seen(operation).filter(|seen| newest.is_none_or(|(newest, _)| newest < *seen));
                newest = seen.map(|seen| (seen, operation)).or(newest);
            }
        }
    }
    match (&history.last, newest) {
        (Some(last), Some((revision, told))) if last.revision < revision => {
            let what = format!(
                "the last look, at revision {}, is older than what was told",
                last.revision
            );
            Err(Violation::new(
                Promise::StrictlySerializable,
                what,
                [told.to_string()],
            ))
        }
        _ => Ok(()),
    }
}

/// The revision that the client of an operation surely knows of afterwards.
fn seen(operation: &Operation) -> Option<Revision> {
    match &operation.outcome {
        Outcome::Written(revision) => *revision,
        Outcome::Read(object) => object.as_ref().map(|object| object.revision),
        Outcome::Listed(listing) => Some(listing.revision),
        Outcome::Unchanged | Outcome::Refused(_) | Outcome::Failed | Outcome::Unknown => None,
    }
}

/// Checks one operation that was begun after another had been told of a revision.
fn check_one(
    operation: &Operation,
    newest: Revision,
    told: &Operation,
    changes: &Changes<'_>,
) -> Result<(), Violation> {
    let wrong = match (&operation.action, &operation.outcome) {
        (_, Outcome::Written(Some(revision))) => (*revision <= newest)
            .then(|| format!("revision {newest} was known before a write that has revision {revision}")),
        (Action::Put { key, value, .. }, Outcome::Unknown) => changes
            .date(key, value)
            .filter(|revision| *revision <= newest)
            .map(|revision| {
                format!("revision {newest} was known before a write that came to have revision {revision}")
            }),
        (_, Outcome::Listed(listing)) => (listing.revision < newest).then(|| {
            let at = listing.revision;
            format!("revision {newest} was known before a list that is of revision {at}")
        }),
        (Action::Get { key }, Outcome::Read(Some(object))) => changes
            .next(key, object.revision)
            .filter(|next| *next <= newest)
            .map(|next| {
                format!("revision {newest} was known before a get that shows {key} as it was before {next}")
            }),
        (Action::Get { key }, Outcome::Read(None)) => missed(operation, key, newest, changes),
        _ => None,
    };
    wrong.map_or(Ok(()), |what| {
        let excerpt = [told.to_string(), operation.to_string()];
        Err(Violation::new(Promise::StrictlySerializable, what, excerpt))
    })
}

/// What a get that found nothing should have found, unless the object may have been removed.
fn missed(operation: &Operation, key: &str, newest: Revision, changes: &Changes<'_>) -> Option<String> {
    let (revision, value) = changes.at(key, newest)?;
    let value = value?;
    let may_be_gone = changes.is_removed_after(key, newest)
        || changes.may_be_gone(key, revision, operation.returned, Revision(u64::MAX));
    (!may_be_gone).then(|| {
        format!("revision {newest} was known before a get that misses {key}={value} at revision {revision}")
    })
}
