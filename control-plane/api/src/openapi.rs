//! OpenAPI documents, v2 and v3, from the registry and the types' schemas.
//!
//! The schemas are `openapi/schemas.json`, made by `openapi/generate.py`. They are parsed at each call, which takes
//! a few milliseconds: callers keep the encoded documents, nobody keeps the tree.

mod paths;
mod schemas;
mod v2;
mod v3;

pub use v2::document as v2;
pub use v3::{document as v3, index as v3_index};

/// The schema's name of a kind, like `io.k8s.api.apps.v1.Deployment`.
pub fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "" => "core",
        group => group.split('.').next().unwrap_or(group),
    };
    format!("io.k8s.api.{package}.{version}.{kind}")
}

/// The path under which a group's version is served, like `apis/apps/v1`.
pub fn group_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

/// The version of Kubernetes' API that clients may count on, and of whose making.
pub const VERSION: &str = "v1.35.0+flotilla";

#[cfg(test)]
mod tests;
