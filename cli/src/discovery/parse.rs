//! Reads the two forms of discovery documents.
//!
//! Pure.

use serde_json::Value;

use super::Resource;

/// One version of a group, and where it lists its resources.
pub(super) struct GroupVersion {
    pub(super) path: String,
    group: String,
    version: String,
    preferred: bool,
}

/// `/api` or `/apis` in the aggregated form.
pub(super) fn aggregated(document: &Value) -> Vec<Resource> {
    let mut resources = Vec::new();
    for group in items(&document["items"]) {
        let name = text(&group["metadata"]["name"]);
        for (position, version) in items(&group["versions"]).iter().enumerate() {
            for resource in items(&version["resources"]) {
                resources.push(Resource {
                    group: name.clone(),
                    version: text(&version["version"]),
                    plural: text(&resource["resource"]),
                    singular: text(&resource["singularResource"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    short_names: texts(&resource["shortNames"]),
                    categories: texts(&resource["categories"]),
                    verbs: texts(&resource["verbs"]),
                    namespaced: resource["scope"] == "Namespaced",
                    preferred: position == 0,
                });
            }
        }
    }
    keep_best_versions(resources)
}

/// `/api`: the versions of the core group.
pub(super) fn core_versions(document: &Value) -> Vec<GroupVersion> {
    let version = |(position, version): (usize, String)| GroupVersion {
        path: format!("/api/{version}"),
        group: String::new(),
        version,
        preferred: position == 0,
    };
    texts(&document["versions"])
        .into_iter()
        .enumerate()
        .map(version)
        .collect()
}

/// `/apis`: the versions of all other groups.
pub(super) fn group_versions(document: &Value) -> Vec<GroupVersion> {
    let mut versions = Vec::new();
    for group in items(&document["groups"]) {
        for version in items(&group["versions"]) {
            versions.push(GroupVersion {
                path: format!("/apis/{}", text(&version["groupVersion"])),
                group: text(&group["name"]),
                version: text(&version["version"]),
                preferred: version["version"] == group["preferredVersion"]["version"],
            });
        }
    }
    versions
}

/// An `APIResourceList`; subresources are left out.
pub(super) fn resource_list(version: &GroupVersion, document: &Value) -> Vec<Resource> {
    let resources = items(&document["resources"])
        .iter()
        .filter(|resource| !text(&resource["name"]).contains('/'));
    let resource = |resource: &Value| Resource {
        group: version.group.clone(),
        version: version.version.clone(),
        plural: text(&resource["name"]),
        singular: text(&resource["singularName"]),
        kind: text(&resource["kind"]),
        short_names: texts(&resource["shortNames"]),
        categories: texts(&resource["categories"]),
        verbs: texts(&resource["verbs"]),
        namespaced: resource["namespaced"] == true,
        preferred: version.preferred,
    };
    resources.map(resource).collect()
}

/// A resource that its group's preferred version lacks is preferred in the version that has it.
fn keep_best_versions(mut resources: Vec<Resource>) -> Vec<Resource> {
    for index in 0..resources.len() {
        let (before, rest) = resources.split_at_mut(index);
        let known = before
            .iter()
            .any(|earlier| earlier.group == rest[0].group && earlier.plural == rest[0].plural);
        rest[0].preferred |= !known;
    }
    resources
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).iter().map(text).collect()
}
