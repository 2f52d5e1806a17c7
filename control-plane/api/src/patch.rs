//! Applies JSON, merge and strategic merge patches to an object's JSON.
//!
//! Pure: a current value and a patch in, the patched value out; the caller decodes, defaults and validates it.
//! Never changes the current value, and never looks at what a field means beyond its merge strategy.

mod order;
mod strategic;
mod strategy;

pub use strategy::{Merging, merging};

use json_patch::Patch;
use serde_json::Value;

use crate::{Kind, Reason, Status, openapi};

/// The patch languages that a client may choose from by content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902: a list of operations.
    Json,
    /// RFC 7396: a partial object, lists are replaced.
    Merge,
    /// Kubernetes' own: a partial object, lists are merged by key.
    StrategicMerge,
}

/// The patched form of `current`, or the answer for a patch that cannot be applied.
pub fn apply(kind: &Kind, how: PatchKind, current: &Value, patch: &Value) -> Result<Value, Status> {
    match how {
        PatchKind::Json => json(current, patch),
        PatchKind::Merge => merge(current, patch),
        PatchKind::StrategicMerge => {
            let schema = openapi::schema_name(kind.group, kind.version, kind.kind);
            strategic::merge(&schema, current, patch).map_err(|error| Status::bad_request(error.to_string()))
        }
    }
}

fn json(current: &Value, patch: &Value) -> Result<Value, Status> {
    let operations: Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let mut patched = current.clone();
    // Kubernetes answers 422 without causes, for a failed `test` as for a path that does not exist.
    json_patch::patch(&mut patched, &operations).map_err(|error| Status {
        reason: Reason::Invalid,
        message: format!("the server rejected our request due to an error in our request: {error}"),
        details: None,
    })?;
    Ok(patched)
}

fn merge(current: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_object() {
        return Err(Status::bad_request(
            "error decoding patch: a merge patch is a JSON object",
        ));
    }
    let mut patched = current.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}
