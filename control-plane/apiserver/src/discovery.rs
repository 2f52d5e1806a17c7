//! Discovery: which groups, versions and resources there are, in the plain and the aggregated form.
//!
//! Pure: all of it derives from the registry and the table of reviews.

use flotilla_api::{Kind, SubresourceInfo, registry};
use serde_json::{Value, json};

use crate::reviews::{REVIEWS, Review};

/// Groups with their one version, core group first.
fn groups() -> Vec<(&'static str, &'static str)> {
    let mut groups = registry().groups();
    for review in REVIEWS {
        if !groups.contains(&(review.group, review.version)) {
            groups.push((review.group, review.version));
        }
    }
    groups
}

/// `/api`
pub(crate) fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`
pub(crate) fn group_list() -> Value {
    let groups: Vec<Value> = named_groups()
        .map(|(name, version)| group_object(name, version))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn named_groups() -> impl Iterator<Item = (&'static str, &'static str)> {
    groups().into_iter().filter(|(name, _)| !name.is_empty())
}

fn group_object(name: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

/// `/apis/GROUP`
pub(crate) fn group(wanted: &str) -> Option<Value> {
    let (name, version) = named_groups().find(|(name, _)| *name == wanted)?;
    let mut object = group_object(name, version);
    object["kind"] = "APIGroup".into();
    object["apiVersion"] = "v1".into();
    Some(object)
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub(crate) fn resources(group: &str, version: &str) -> Option<Value> {
    groups().contains(&(group, version)).then(|| {
        let mut resources: Vec<Value> = kinds(group, version).flat_map(with_subresources).collect();
        resources.extend(reviews(group, version).map(review_resource));
        let group_version = match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
    })
}

fn kinds<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Kind> + 'a {
    registry()
        .all()
        .filter(move |kind| (kind.group, kind.version) == (group, version))
}

fn reviews<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Review> + 'a {
    REVIEWS
        .iter()
        .filter(move |review| (review.group, review.version) == (group, version))
}

fn with_subresources(kind: &'static Kind) -> Vec<Value> {
    let mut resource = json!({
        "name": kind.resource, "singularName": kind.singular, "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let below = kind
        .subresources
        .iter()
        .map(|subresource| subresource_of(kind, subresource));
    std::iter::once(resource).chain(below).collect()
}

fn subresource_of(kind: &Kind, subresource: &SubresourceInfo) -> Value {
    let mut resource = json!({
        "name": format!("{}/{}", kind.resource, subresource.name), "singularName": "",
        "namespaced": kind.namespaced, "kind": subresource.kind, "verbs": subresource.verbs,
    });
    if (subresource.group, subresource.version) != (kind.group, kind.version) {
        resource["group"] = subresource.group.into();
        resource["version"] = subresource.version.into();
    }
    resource
}

fn review_resource(review: &Review) -> Value {
    json!({"name": review.resource, "singularName": review.kind.to_lowercase(), "namespaced": false,
           "kind": review.kind, "verbs": ["create"]})
}

/// `/api` or `/apis` with everything below, in a version of `apidiscovery.k8s.io`.
pub(crate) fn aggregated(version: &str, core: bool) -> Value {
    let items: Vec<Value> = groups()
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, version)| aggregated_group(name, version))
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn aggregated_group(name: &str, version: &str) -> Value {
    let mut metadata = json!({"creationTimestamp": null});
    if !name.is_empty() {
        metadata["name"] = name.into();
    }
    let mut resources: Vec<Value> = kinds(name, version).map(aggregated_kind).collect();
    resources.extend(reviews(name, version).map(|review| {
        json!({"resource": review.resource, "responseKind": kind_object(review.group, review.version, review.kind),
               "scope": "Cluster", "singularResource": review.kind.to_lowercase(), "verbs": ["create"]})
    }));
    json!({
        "metadata": metadata,
        "versions": [{"version": version, "freshness": "Current", "resources": resources}],
    })
}

fn aggregated_kind(kind: &Kind) -> Value {
    let mut resource = json!({
        "resource": kind.resource,
        "responseKind": kind_object(kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let below: Vec<Value> = kind
        .subresources
        .iter()
        .map(|one| {
            json!({"subresource": one.name, "responseKind": kind_object(one.group, one.version, one.kind), "verbs": one.verbs})
        })
        .collect();
    if !below.is_empty() {
        resource["subresources"] = below.into();
    }
    resource
}

fn kind_object(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// `/version`
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "35", "gitVersion": flotilla_api::openapi::VERSION, "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", architecture()),
    })
}

/// The machine in Go's words, which clients expect.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_aggregated_discovery_tell_the_same() {
        let plain = resources("apps", "v1").unwrap();
        let names: Vec<&str> = plain["resources"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|resource| resource["name"].as_str().filter(|name| !name.contains('/')))
            .collect();
        let aggregated = aggregated("v2", false);
        let apps = aggregated["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["metadata"]["name"] == "apps");
        let found: Vec<&str> = apps.unwrap()["versions"][0]["resources"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|resource| resource["resource"].as_str())
            .collect();
        assert_eq!(found, names);
        assert!(names.contains(&"deployments"));
    }

    #[test]
    fn groups_without_kinds_are_not_there() {
        assert!(group("nowhere.io").is_none());
        assert!(resources("apps", "v2").is_none());
        assert_eq!(
            group("apps").unwrap()["preferredVersion"]["groupVersion"],
            "apps/v1"
        );
        assert_eq!(resources("", "v1").unwrap()["groupVersion"], "v1");
    }
}
