//! What a URL's path names.
//!
//! Pure: knows the shape of Kubernetes' paths, not which kinds there are.

use crate::query::decoded;

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/`
    Root,
    /// `/healthz`, `/livez`, `/readyz`, with one check's name or none.
    Health { probe: String, check: Option<String> },
    /// `/version`
    Version,
    /// `/metrics`
    Metrics,
    /// `/api`: versions of the core group.
    CoreVersions,
    /// `/apis`: all other groups.
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`
    GroupVersion { group: String, version: String },
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiV3Index,
    /// `/openapi/v3/apis/GROUP/VERSION`
    OpenApiV3 { group: String, version: String },
    /// `/flotilla.dev/snapshot`: the whole cluster as a file.
    Snapshot,
    /// Objects.
    Resource(ResourcePath),
    /// Nothing that this server has.
    Unknown,
}

/// A path to objects.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// What follows the subresource, still encoded; for `proxy`.
    pub(crate) rest: Option<String>,
}

impl ResourcePath {
    /// The namespace, empty for cluster-scoped objects and lists over all namespaces.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

/// Finds what `path` leads to.
pub(crate) fn parse(path: &str) -> Target {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [] => Target::Root,
        ["version"] => Target::Version,
        ["flotilla.dev", "snapshot"] => Target::Snapshot,
        ["metrics"] => Target::Metrics,
        [probe @ ("healthz" | "livez" | "readyz"), check @ ..] if check.len() < 2 => Target::Health {
            probe: (*probe).to_owned(),
            check: check.first().map(|check| decoded(check, false)),
        },
        ["openapi", "v2"] => Target::OpenApiV2,
        ["openapi", "v3"] => Target::OpenApiV3Index,
        ["openapi", "v3", "api", version] => Target::OpenApiV3 {
            group: String::new(),
            version: (*version).to_owned(),
        },
        ["openapi", "v3", "apis", group, version] => Target::OpenApiV3 {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
        },
        ["api"] => Target::CoreVersions,
        ["api", version, rest @ ..] => below("", version, rest),
        ["apis"] => Target::Groups,
        ["apis", group] => Target::Group((*group).to_owned()),
        ["apis", group, version, rest @ ..] => below(group, version, rest),
        _ => Target::Unknown,
    }
}

fn below(group: &str, version: &str, segments: &[&str]) -> Target {
    let (namespace, rest) = match segments {
        [] => {
            return Target::GroupVersion {
                group: group.to_owned(),
                version: version.to_owned(),
            };
        }
        // `namespaces/x/status` is a subresource of the namespace itself.
        ["namespaces", _, "status" | "finalize"] => (None, segments),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(decoded(namespace, false)), rest),
        _ => (None, segments),
    };
    let [resource, rest @ ..] = rest else {
        return Target::Unknown;
    };
    let (subresource, tail) = match rest {
        [_, subresource, tail @ ..] => (Some((*subresource).to_owned()), tail),
        _ => (None, &[][..]),
    };
    if !tail.is_empty() && subresource.as_deref() != Some("proxy") {
        return Target::Unknown;
    }
    Target::Resource(ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: (*resource).to_owned(),
        namespace,
        name: rest.first().map(|name| decoded(name, false)),
        subresource,
        rest: (!tail.is_empty()).then(|| tail.join("/")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, wanted: &str) {
        let found = match parse(path) {
            Target::Resource(found) => format!(
                "{}/{}/{} ns={} name={} sub={} rest={}",
                found.group,
                found.version,
                found.resource,
                found.namespace.as_deref().unwrap_or("-"),
                found.name.as_deref().unwrap_or("-"),
                found.subresource.as_deref().unwrap_or("-"),
                found.rest.as_deref().unwrap_or("-"),
            ),
            other => format!("{other:?}"),
        };
        assert_eq!(found, wanted, "{path}");
    }

    #[test]
    fn paths_lead_to_objects() {
        check("/api/v1/pods", "/v1/pods ns=- name=- sub=- rest=-");
        check("/api/v1/namespaces", "/v1/namespaces ns=- name=- sub=- rest=-");
        check("/api/v1/namespaces/a", "/v1/namespaces ns=- name=a sub=- rest=-");
        check(
            "/api/v1/namespaces/a/status",
            "/v1/namespaces ns=- name=a sub=status rest=-",
        );
        check(
            "/api/v1/namespaces/a/finalize",
            "/v1/namespaces ns=- name=a sub=finalize rest=-",
        );
        check("/api/v1/namespaces/a/pods", "/v1/pods ns=a name=- sub=- rest=-");
        check(
            "/api/v1/namespaces/a/pods/b/log",
            "/v1/pods ns=a name=b sub=log rest=-",
        );
        check(
            "/apis/apps/v1/namespaces/a/deployments/b/",
            "apps/v1/deployments ns=a name=b sub=- rest=-",
        );
        check(
            "/api/v1/nodes/a%20b/status",
            "/v1/nodes ns=- name=a b sub=status rest=-",
        );
        check(
            "/api/v1/namespaces/a/pods/b:80/proxy/x/y%20z",
            "/v1/pods ns=a name=b:80 sub=proxy rest=x/y%20z",
        );
    }

    #[test]
    fn paths_lead_to_documents() {
        check("", "Root");
        check(
            "/readyz/etcd",
            "Health { probe: \"readyz\", check: Some(\"etcd\") }",
        );
        check("/flotilla.dev/snapshot", "Snapshot");
        check("/api", "CoreVersions");
        check("/apis/", "Groups");
        check("/apis/apps", "Group(\"apps\")");
        check(
            "/apis/apps/v1",
            "GroupVersion { group: \"apps\", version: \"v1\" }",
        );
        check("/openapi/v3/api/v1", "OpenApiV3 { group: \"\", version: \"v1\" }");
        check(
            "/openapi/v3/apis/apps/v1",
            "OpenApiV3 { group: \"apps\", version: \"v1\" }",
        );
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "/foo",
            "/api/v1/namespaces/a/pods/b/log/more",
            "/healthz/a/b",
            "/openapi",
        ] {
            check(path, "Unknown");
        }
    }
}
