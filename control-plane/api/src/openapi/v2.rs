//! The one document of OpenAPI v2.

use serde_json::{Map, Value, json};

use super::schemas::{self, Dialect};
use super::{VERSION, paths};
use crate::registry;

/// All kinds, paths and schemas.
pub fn document() -> Value {
    let paths: Map<String, Value> = registry()
        .all()
        .flat_map(|kind| paths::of(Dialect::V2, kind))
        .collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "definitions": schemas::all(Dialect::V2),
    })
}
