//! One line per event.
//!
//! Pure. An object that begins or ceases to be picked by the watch's selectors is added or deleted for the watcher.

use bytes::Bytes;
use flotilla_api::registry;
use flotilla_store::{Change, Event, Stored};
use serde_json::Value;

use crate::render::Renderer;
use crate::selection::Selection;

/// What a change is for one watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Added,
    Modified,
    Deleted,
    Nothing,
}

/// From whether the object was picked before and is picked now.
fn seen(change: Change, before: bool, now: bool) -> Seen {
    match (change, before, now) {
        (Change::Added, _, true) => Seen::Added,
        (Change::Deleted, _, true) => Seen::Deleted,
        (Change::Modified, true, true) => Seen::Modified,
        (Change::Modified, false, true) => Seen::Added,
        (Change::Modified, true, false) => Seen::Deleted,
        _ => Seen::Nothing,
    }
}

/// Appends what `event` is for the watcher, if anything.
pub(super) fn event(out: &mut Vec<u8>, renderer: &Renderer, selection: &Selection, event: &Event) {
    let everything = selection.is_everything();
    let now = everything || selection.picks(&event.object);
    let before = everything
        || event
            .previous
            .as_ref()
            .is_some_and(|previous| selection.picks(previous));
    match seen(event.change, before, now) {
        Seen::Added => frame(out, "ADDED", renderer.object(&event.object)),
        Seen::Modified => frame(out, "MODIFIED", renderer.object(&event.object)),
        Seen::Deleted if now => frame(out, "DELETED", renderer.object(&event.object)),
        Seen::Deleted => frame(out, "DELETED", last_picked(renderer, event)),
        Seen::Nothing => {}
    }
}

/// The state in which the object was picked last, with the version of the change that took it away.
fn last_picked(renderer: &Renderer, event: &Event) -> Option<Bytes> {
    let previous = event.previous.as_ref()?;
    let group = &*previous.key.resource.group;
    let kind = registry().all().find(|kind| {
        kind.storage().is_none() && kind.resource_name() == (group, &*previous.key.resource.resource)
    })?;
    let mut object = kind.decode_stored(&previous.json).ok()?;
    object.meta_mut().resource_version = Some(event.revision.to_string());
    renderer.state(&previous.key, &object.encode().into(), event.revision)
}

/// Appends an object that was there at the beginning.
pub(super) fn added(out: &mut Vec<u8>, renderer: &Renderer, stored: &Stored) {
    frame(out, "ADDED", renderer.object(stored));
}

/// Appends how far the watcher has come.
pub(super) fn bookmark(out: &mut Vec<u8>, object: &Value) {
    frame(out, "BOOKMARK", Some(object.to_string().into()));
}

/// Why the watch is over.
pub(super) fn error(status: &Value) -> Bytes {
    let mut out = Vec::new();
    frame(&mut out, "ERROR", Some(status.to_string().into()));
    out.into()
}

fn frame(out: &mut Vec<u8>, type_: &str, object: Option<Bytes>) {
    let Some(object) = object else { return };
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(type_.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(&object);
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_turn_changes_into_arrivals_and_departures() {
        use Change::{Added, Deleted, Modified};
        let cases = [
            (Added, false, true, Seen::Added),
            (Added, false, false, Seen::Nothing),
            (Modified, true, true, Seen::Modified),
            (Modified, false, true, Seen::Added),
            (Modified, true, false, Seen::Deleted),
            (Modified, false, false, Seen::Nothing),
            (Deleted, true, true, Seen::Deleted),
            (Deleted, false, false, Seen::Nothing),
        ];
        for (change, before, now, wanted) in cases {
            assert_eq!(seen(change, before, now), wanted, "{change:?} {before} {now}");
        }
    }

    #[test]
    fn frames_are_lines() {
        let mut out = Vec::new();
        bookmark(&mut out, &serde_json::json!({"kind": "Pod"}));
        assert_eq!(out, b"{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Pod\"}}\n");
    }
}
