//! Which moment a read may see: `resourceVersion` and `resourceVersionMatch`.

use flotilla_api::{Cause, Details, Path, Reason, Status};
use flotilla_raft::Replica;
use flotilla_resources::read_failed;
use flotilla_store::{Revision, Snapshot};

use super::recent::RecentSnapshots;
use crate::query::{Query, refused};

/// The moment that a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything that was acknowledged before the request.
    Latest,
    /// Whatever this server has.
    Any,
    /// This moment or a later one.
    NotOlderThan(Revision),
    /// This moment.
    Exactly(Revision),
}

/// Reads the query; `limited` lists of a given moment mean exactly that one, as Kubernetes has always had it.
pub(crate) fn wanted(query: &Query, limited: bool) -> Result<Wanted, Status> {
    let version = query.get("resourceVersion").map(revision).transpose()?;
    match (version, query.get("resourceVersionMatch")) {
        (None, None) => Ok(Wanted::Latest),
        (None, Some(_)) => Err(refused("ListOptions", |errors| {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.forbidden(Path::root("resourceVersionMatch"), why);
        })),
        (Some(Revision(0)), Some("Exact")) => Err(refused("ListOptions", |errors| {
            let why = "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
            errors.forbidden(Path::root("resourceVersionMatch"), why);
        })),
        (Some(Revision(0)), None | Some("NotOlderThan")) => Ok(Wanted::Any),
        (Some(revision), Some("Exact")) => Ok(Wanted::Exactly(revision)),
        (Some(revision), None) if limited => Ok(Wanted::Exactly(revision)),
        (Some(revision), None | Some("NotOlderThan")) => Ok(Wanted::NotOlderThan(revision)),
        (Some(_), Some(other)) => Err(refused("ListOptions", |errors| {
            let supported = ["", "Exact", "NotOlderThan"];
            errors.not_supported(Path::root("resourceVersionMatch"), other, &supported);
        })),
    }
}

/// Reads a resource version.
pub(crate) fn revision(text: &str) -> Result<Revision, Status> {
    text.parse().map(Revision).map_err(|_| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: \"{text}\": must be an unsigned integer"
        ))
    })
}

/// A snapshot of the moment that is asked for.
pub(crate) async fn snapshot_at(
    replica: &Replica,
    recent: &RecentSnapshots,
    wanted: Wanted,
) -> Result<Snapshot, Status> {
    match wanted {
        Wanted::Latest => read(replica).await,
        Wanted::Any => Ok(replica.snapshot()),
        Wanted::NotOlderThan(revision) => not_older_than(replica, revision).await,
        Wanted::Exactly(revision) => {
            let now = not_older_than(replica, revision).await?;
            if now.revision() == revision {
                return Ok(now);
            }
            recent
                .find(revision)
                .ok_or_else(|| Status::expired("The resourceVersion for the provided list is too old."))
        }
    }
}

async fn not_older_than(replica: &Replica, revision: Revision) -> Result<Snapshot, Status> {
    let local = replica.snapshot();
    if local.revision() >= revision {
        return Ok(local);
    }
    let latest = read(replica).await?;
    if latest.revision() >= revision {
        return Ok(latest);
    }
    Err(too_large(revision, latest.revision()))
}

async fn read(replica: &Replica) -> Result<Snapshot, Status> {
    replica.read().await.map_err(|error| read_failed(&error))
}

fn too_large(wanted: Revision, current: Revision) -> Status {
    let message = "Too large resource version".to_owned();
    let cause = Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: message.clone(),
        field: String::new(),
    };
    Status {
        reason: Reason::Timeout,
        message: format!("Timeout: {message}: {wanted}, current: {current}"),
        details: Some(Details {
            causes: vec![cause],
            retry_after_seconds: Some(1),
            ..Details::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, limited: bool, expected: Result<Wanted, Reason>) {
        let found = wanted(&Query::parse(query), limited).map_err(|status| status.reason);
        assert_eq!(found, expected, "{query}");
    }

    #[test]
    fn versions_mean_what_kubernetes_means_by_them() {
        use Wanted::*;
        check("", false, Ok(Latest));
        check("resourceVersion=", false, Ok(Latest));
        check("resourceVersion=0", true, Ok(Any));
        check("resourceVersion=5", false, Ok(NotOlderThan(Revision(5))));
        check("resourceVersion=5", true, Ok(Exactly(Revision(5))));
        check(
            "resourceVersion=5&resourceVersionMatch=NotOlderThan",
            true,
            Ok(NotOlderThan(Revision(5))),
        );
        check(
            "resourceVersion=5&resourceVersionMatch=Exact",
            false,
            Ok(Exactly(Revision(5))),
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check("resourceVersionMatch=Exact", false, Err(Reason::Invalid));
        check(
            "resourceVersion=0&resourceVersionMatch=Exact",
            false,
            Err(Reason::Invalid),
        );
        check(
            "resourceVersion=5&resourceVersionMatch=Later",
            false,
            Err(Reason::Invalid),
        );
        check("resourceVersion=x", false, Err(Reason::BadRequest));
    }
}
