//! `/healthz`, `/livez` and `/readyz`.

use std::borrow::Cow;

use flotilla_raft::{Replica, SpaceUse, StoreStatus};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;
use crate::query::Query;

/// One thing that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    name: &'static str,
    fails: Option<Cow<'static, str>>,
}

fn check(name: &'static str, passes: bool, otherwise: &'static str) -> Check {
    Check {
        name,
        fails: (!passes).then_some(otherwise.into()),
    }
}

/// What is known about this server: it lives when it answers and its store has not failed, and is ready when it
/// knows a leader.
fn checks(replica: &Replica, probe: &str, draining: bool) -> Vec<Check> {
    let store = Check {
        name: "store",
        fails: replica.failure().map(Cow::Owned),
    };
    let mut checks = vec![check("ping", true, ""), store];
    if probe != "livez" {
        let initialized = replica.is_initialized();
        checks.push(check(
            "cluster",
            initialized,
            "this server is not a member of a cluster yet",
        ));
        checks.push(space_check(&replica.status()));
        let leader = replica.leadership().borrow().leader.is_some();
        checks.push(check("leader", leader, "no leader is known"));
    }
    if probe == "readyz" {
        checks.push(check("shutdown", !draining, "this server is shutting down"));
    }
    checks
}

/// Whether there is room in the store. If not, that is no reason to send clients elsewhere, where there is none either:
/// the alarm is shown, and the server is ready.
fn space_check(status: &StoreStatus) -> Check {
    let alarms: Vec<String> = status.alarms.iter().map(alarm).collect();
    Check {
        name: ALARM,
        fails: (!alarms.is_empty()).then(|| alarms.join("; ").into()),
    }
}

/// A check that is shown and looked at by itself, but makes nobody unready.
const ALARM: &str = "store-space";

fn alarm(over: &SpaceUse) -> String {
    format!(
        "the store's data on {} takes {} MiB, over its quota of {} MiB",
        over.server,
        over.used_bytes >> 20,
        over.quota_bytes >> 20
    )
}

/// Answers a probe, or the question for one of its checks; `None` when there is no such check.
pub(crate) fn respond(
    replica: &Replica,
    probe: &str,
    wanted: Option<&str>,
    query: &Query,
    draining: bool,
) -> Option<Response<Body>> {
    let mut checks = checks(replica, probe, draining);
    if let Some(wanted) = wanted {
        checks.retain(|check| check.name == wanted);
        if checks.is_empty() {
            return None;
        }
    }
    checks.retain(|check| !query.all("exclude").any(|name| name == check.name));
    let passed = checks
        .iter()
        .all(|check| check.fails.is_none() || (check.name == ALARM && wanted.is_none()));
    let code = if passed {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let verbose = query.all("verbose").next().is_some();
    let text = if passed && !verbose {
        "ok".to_owned()
    } else {
        report(probe, &checks, passed)
    };
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    Some(response)
}

fn report(probe: &str, checks: &[Check], passed: bool) -> String {
    let mut text = String::new();
    for check in checks {
        match &check.fails {
            None => text.push_str(&format!("[+]{} ok\n", check.name)),
            Some(why) if check.name == ALARM => text.push_str(&format!("[!]{} warns: {why}\n", check.name)),
            Some(why) => text.push_str(&format!("[-]{} failed: {why}\n", check.name)),
        }
    }
    text + &format!("{probe} check {}\n", if passed { "passed" } else { "failed" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_name_every_check() {
        let checks = [
            check("ping", true, ""),
            check("leader", false, "no leader is known"),
        ];
        assert_eq!(
            report("readyz", &checks, false),
            "[+]ping ok\n[-]leader failed: no leader is known\nreadyz check failed\n"
        );
    }
}
