//! ConfigMaps as the keys and values of a history: paths, bodies, and what an answer proves.

use flotilla_history::{Action, Event, Found, Kind, Listing, Object, Outcome, Require, Revision};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::caller::{Answer, NoAnswer};

/// The names of a workload's ConfigMaps begin so: controllers put others into each namespace.
pub(crate) const PREFIX: &str = "k-";

/// A request for an action.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: String,
}

/// What a watch says in one line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Event(Event),
    Bookmark(Revision),
    /// A change of something that is not the workload's.
    Foreign,
    /// The revision to start from is no longer kept.
    Expired,
    /// The stream has failed otherwise, or is not understood.
    Broken,
}

/// The path of all ConfigMaps of a namespace.
pub(crate) fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// The request for an action; a put of what is there already is a `PUT`, so it never creates.
pub(crate) fn call(namespace: &str, action: &Action, filling: &str) -> Call {
    let collection = collection(namespace);
    let object = |key: &str| format!("{collection}/{key}");
    let (method, path, body) = match action {
        Action::Put { key, value, require } => {
            let mut body = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key},
                "data": {"tag": value, "filling": filling},
            });
            if let Require::At(revision) = require {
                body["metadata"]["resourceVersion"] = revision.to_string().into();
            }
            match require {
                Require::Absent => (Method::POST, collection, body.to_string()),
                _ => (Method::PUT, object(key), body.to_string()),
            }
        }
        Action::Delete { key, require } => {
            let body = match require {
                Require::At(revision) => json!({"preconditions": {"resourceVersion": revision.to_string()}}),
                _ => json!({}),
            };
            (Method::DELETE, object(key), body.to_string())
        }
        Action::Get { key } => (Method::GET, object(key), String::new()),
        Action::List { .. } => (Method::GET, collection, String::new()),
    };
    Call { method, path, body }
}

/// What an answer proves about an action.
pub(crate) fn outcome(action: &Action, answer: Result<Answer, NoAnswer>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer::NeverSent) => return Outcome::Failed,
        Err(NoAnswer::Lost) => return Outcome::Unknown,
    };
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.code.is_success() {
        return success(action, &body);
    }
    let (is_read, require) = match action {
        Action::Get { .. } | Action::List { .. } => (true, Require::Anything),
        Action::Put { require, .. } | Action::Delete { require, .. } => (false, *require),
    };
    match (answer.code, body["reason"].as_str()) {
        (StatusCode::NOT_FOUND, Some("NotFound")) if is_read => Outcome::Read(None),
        _ if is_read => Outcome::Failed,
        (StatusCode::NOT_FOUND, Some("NotFound")) if require != Require::Absent => {
            Outcome::Refused(Found::Nothing)
        }
        (StatusCode::CONFLICT, Some("AlreadyExists")) => Outcome::Refused(Found::Something),
        (StatusCode::CONFLICT, Some("Conflict")) if matches!(require, Require::At(_)) => {
            Outcome::Refused(Found::Untold)
        }
        // A change without a demand gives up, with nothing done, when others were quicker again and again; the other
        // two say that nothing was done.
        (StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(_)) => {
            Outcome::Failed
        }
        _ => Outcome::Unknown,
    }
}

fn success(action: &Action, body: &Value) -> Outcome {
    match action {
        Action::Put { .. } => Outcome::Written(revision(body)),
        Action::Delete { .. } => Outcome::Written(None),
        Action::Get { .. } => object(body).map_or(Outcome::Failed, |object| Outcome::Read(Some(object))),
        Action::List { .. } => listing(body).map_or(Outcome::Failed, Outcome::Listed),
    }
}

/// What a list of the namespace shows of the workload's objects.
pub(crate) fn listing(body: &Value) -> Option<Listing> {
    let items = body["items"].as_array()?;
    let ours = items.iter().filter_map(|item| {
        let name = name(item)?;
        name.starts_with(PREFIX).then(|| Some((name, object(item)?)))?
    });
    Some(Listing {
        revision: revision(body)?,
        objects: ours.collect(),
    })
}

/// One line of a watch.
pub(crate) fn line(text: &[u8]) -> Line {
    let Ok(line) = serde_json::from_slice::<Value>(text) else {
        return Line::Broken;
    };
    let kind = match line["type"].as_str() {
        Some("ADDED") => Kind::Added,
        Some("MODIFIED") => Kind::Modified,
        Some("DELETED") => Kind::Deleted,
        Some("BOOKMARK") => return revision(&line["object"]).map_or(Line::Broken, Line::Bookmark),
        Some("ERROR") if line["object"]["code"] == 410 => return Line::Expired,
        _ => return Line::Broken,
    };
    match (name(&line["object"]), object(&line["object"])) {
        (Some(name), _) if !name.starts_with(PREFIX) => Line::Foreign,
        (Some(key), Some(Object { value, revision })) => Line::Event(Event {
            kind,
            key,
            value,
            revision,
        }),
        _ => Line::Broken,
    }
}

fn name(object: &Value) -> Option<String> {
    object["metadata"]["name"].as_str().map(str::to_owned)
}

fn object(body: &Value) -> Option<Object> {
    Some(Object {
        value: body["data"]["tag"].as_str()?.to_owned(),
        revision: revision(body)?,
    })
}

fn revision(body: &Value) -> Option<Revision> {
    let text = body["metadata"]["resourceVersion"].as_str()?;
    text.parse().ok().map(Revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(require: Require) -> Action {
        let (key, value) = ("k-a".to_owned(), "x".to_owned());
        Action::Put { key, value, require }
    }

    fn answered(action: &Action, code: u16, body: &str) -> Outcome {
        let code = StatusCode::from_u16(code).unwrap();
        let body = body.to_owned().into();
        outcome(action, Ok(Answer { code, body }))
    }

    #[test]
    fn only_an_answer_that_says_so_is_a_refusal() {
        let conflict = r#"{"reason": "Conflict"}"#;
        let at = put(Require::At(Revision(3)));
        assert_eq!(answered(&at, 409, conflict), Outcome::Refused(Found::Untold));
        assert_eq!(answered(&put(Require::Present), 409, conflict), Outcome::Failed);
        let exists = r#"{"reason": "AlreadyExists"}"#;
        assert_eq!(
            answered(&put(Require::Absent), 409, exists),
            Outcome::Refused(Found::Something)
        );
        let missing = r#"{"reason": "NotFound"}"#;
        assert_eq!(answered(&at, 404, missing), Outcome::Refused(Found::Nothing));
        // Of a creation it speaks of the namespace.
        assert_eq!(answered(&put(Require::Absent), 404, missing), Outcome::Unknown);
    }

    #[test]
    fn what_is_not_told_is_unknown() {
        let write = put(Require::Anything);
        assert_eq!(outcome(&write, Err(NoAnswer::Lost)), Outcome::Unknown);
        assert_eq!(outcome(&write, Err(NoAnswer::NeverSent)), Outcome::Failed);
        assert_eq!(
            answered(&write, 504, r#"{"reason": "Timeout"}"#),
            Outcome::Unknown
        );
        assert_eq!(answered(&write, 500, ""), Outcome::Unknown);
        // Somebody in between who is not the API server says nothing about what happened behind it.
        assert_eq!(answered(&write, 503, "<html>"), Outcome::Unknown);
        let unavailable = r#"{"reason": "ServiceUnavailable"}"#;
        assert_eq!(answered(&write, 503, unavailable), Outcome::Failed);
    }

    #[test]
    fn a_list_shows_the_workloads_objects_only() {
        let body = json!({"metadata": {"resourceVersion": "9"}, "items": [
            {"metadata": {"name": "k-a", "resourceVersion": "4"}, "data": {"tag": "x"}},
            {"metadata": {"name": "kube-root-ca.crt", "resourceVersion": "2"}, "data": {}},
        ]});
        let listing = listing(&body).unwrap();
        assert_eq!(listing.revision, Revision(9));
        let keys: Vec<&String> = listing.objects.keys().collect();
        assert_eq!(keys, ["k-a"]);
    }

    #[test]
    fn lines_of_a_watch_are_told_apart() {
        let event = br#"{"type": "DELETED", "object": {"metadata": {"name": "k-a", "resourceVersion": "4"}, "data": {"tag": "x"}}}"#;
        let expected = Event {
            kind: Kind::Deleted,
            key: "k-a".to_owned(),
            value: "x".to_owned(),
            revision: Revision(4),
        };
        assert_eq!(line(event), Line::Event(expected));
        assert_eq!(
            line(br#"{"type": "ERROR", "object": {"code": 410}}"#),
            Line::Expired
        );
        assert_eq!(
            line(br#"{"type": "ERROR", "object": {"code": 503}}"#),
            Line::Broken
        );
        assert_eq!(line(br#"{"type": "ADD"#), Line::Broken);
        let bookmark = br#"{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}"#;
        assert_eq!(line(bookmark), Line::Bookmark(Revision(7)));
        let foreign = br#"{"type": "ADDED", "object": {"metadata": {"name": "kube-root-ca.crt"}}}"#;
        assert_eq!(line(foreign), Line::Foreign);
    }
}
