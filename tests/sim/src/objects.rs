//! Objects as the workload makes them: a key is `namespace/name`, the content a tag and sometimes a lot of padding.

use bytes::Bytes;
use flotilla_history::{Action, Object, Require, Revision};
use flotilla_store::{Draft, Key, Operation, ResourceName, Stored, Transaction};

/// The only resource.
pub(crate) fn resource() -> ResourceName {
    ResourceName::new("sim", "things")
}

/// The namespaces; a prefix of the history is one of them with a slash, or empty.
pub(crate) const NAMESPACES: [&str; 2] = ["a", "b"];

/// The store's key of a history's key.
pub(crate) fn key(key: &str) -> Key {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    Key::new(resource(), namespace, name)
}

/// The history's key of an object.
pub(crate) fn name(key: &Key) -> String {
    format!("{}/{}", key.namespace, key.name)
}

/// The namespace that a prefix stands for.
pub(crate) fn namespace(prefix: &str) -> Option<String> {
    prefix.strip_suffix('/').map(str::to_owned)
}

const TAG: &str = "\"tag\":\"";

/// The tag in an object's JSON.
pub(crate) fn tag(json: &[u8]) -> String {
    let json = String::from_utf8_lossy(json);
    let tag = json.split_once(TAG).and_then(|(_, rest)| rest.split_once('"'));
    tag.map(|(tag, _)| tag.to_owned()).unwrap_or_default()
}

/// An object as the history has it.
pub(crate) fn shown(object: &Stored) -> Object {
    Object {
        value: tag(&object.json),
        revision: Revision(object.modified.0),
    }
}

/// The transaction of a write; none of a read.
pub(crate) fn transaction(action: &Action, padding: usize) -> Option<Transaction> {
    let operation = match action {
        Action::Put { key, value, require } => Operation::Put {
            key: self::key(key),
            draft: draft(key, value, padding),
            require: demand(*require),
        },
        Action::Delete { key, require } => Operation::Delete {
            key: self::key(key),
            require: demand(*require),
        },
        Action::Get { .. } | Action::List { .. } => return None,
    };
    Some(Transaction {
        operations: vec![operation],
        fence: None,
    })
}

fn draft(key: &str, tag: &str, padding: usize) -> Draft {
    let padding = "x".repeat(padding);
    let json = format!(r#"{{"metadata":{{"name":"{key}"}},{TAG}{tag}","padding":"{padding}"}}"#);
    Draft {
        revision_at: r#"{"metadata":{"#.len(),
        json: Bytes::from(json),
    }
}

fn demand(require: Require) -> flotilla_store::Require {
    match require {
        Require::Anything => flotilla_store::Require::Anything,
        Require::Absent => flotilla_store::Require::Absent,
        Require::Present => flotilla_store::Require::Present,
        Require::At(revision) => flotilla_store::Require::Modified(flotilla_store::Revision(revision.0)),
    }
}
