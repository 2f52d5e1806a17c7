//! Who may do what, until there is RBAC.
//!
//! Pure. `system:masters` may do everything, nodes may read nodes and pods, `system:monitoring` metrics, everybody may read health and version,
//! and those who are known may look at discovery and ask what they may do.

use flotilla_api::{Details, Reason, Status};

use super::{GROUP_AUTHENTICATED, GROUP_MASTERS, GROUP_MONITORING, GROUP_NODES, User};
use crate::path::{ResourcePath, Target};

/// What somebody wants to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The path, when it does not lead to objects.
    pub(crate) path: Option<String>,
}

impl Attributes {
    pub(crate) fn of_path(verb: &str, path: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            path: Some(path.to_owned()),
            ..Self::default()
        }
    }

    pub(crate) fn of_resource(verb: &str, path: &ResourcePath) -> Self {
        Self {
            verb: verb.to_owned(),
            group: path.group.clone(),
            resource: path.resource.clone(),
            subresource: path.subresource.clone().unwrap_or_default(),
            namespace: path.namespace().to_owned(),
            name: path.name.clone().unwrap_or_default(),
            path: None,
        }
    }
}

/// Whether `user` may do it.
pub(crate) fn allowed(user: &User, wanted: &Attributes) -> bool {
    if user.is_in(GROUP_MASTERS) {
        return true;
    }
    match &wanted.path {
        Some(path) => path_allowed(user, &wanted.verb, path),
        None => resource_allowed(user, wanted),
    }
}

fn path_allowed(user: &User, verb: &str, path: &str) -> bool {
    use Target::*;
    match crate::path::parse(path) {
        _ if verb != "get" => false,
        Health { .. } | Version => true,
        Metrics => user.is_in(GROUP_MONITORING),
        Root | CoreVersions | Groups | Group(_) | GroupVersion { .. } => user.is_in(GROUP_AUTHENTICATED),
        OpenApiV2 | OpenApiV3Index | OpenApiV3 { .. } => user.is_in(GROUP_AUTHENTICATED),
        Resource(_) | Snapshot | Unknown => false,
    }
}

fn resource_allowed(user: &User, wanted: &Attributes) -> bool {
    let about_self = matches!(
        (wanted.group.as_str(), wanted.resource.as_str()),
        (
            "authorization.k8s.io",
            "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
        ) | ("authentication.k8s.io", "selfsubjectreviews")
    );
    if about_self && wanted.verb == "create" {
        return user.is_in(GROUP_AUTHENTICATED);
    }
    let reads = matches!(wanted.verb.as_str(), "get" | "list" | "watch");
    let of_nodes = wanted.group.is_empty() && matches!(wanted.resource.as_str(), "nodes" | "pods");
    user.is_in(GROUP_NODES) && reads && of_nodes && matches!(wanted.subresource.as_str(), "" | "status")
}

/// Refuses what `user` may not do.
pub(crate) fn check(user: &User, wanted: &Attributes) -> Result<(), Status> {
    if allowed(user, wanted) {
        return Ok(());
    }
    Err(Status {
        reason: Reason::Forbidden,
        message: message(user, wanted),
        details: Some(Details {
            group: wanted.group.clone(),
            kind: wanted.resource.clone(),
            name: wanted.name.clone(),
            ..Details::default()
        }),
    })
}

fn message(user: &User, wanted: &Attributes) -> String {
    let Attributes {
        verb,
        group,
        resource,
        subresource,
        namespace,
        name,
        path,
    } = wanted;
    if let Some(path) = path {
        return format!("forbidden: User \"{}\" cannot {verb} path \"{path}\"", user.name);
    }
    let qualified = match group.as_str() {
        "" => resource.clone(),
        group => format!("{resource}.{group}"),
    };
    let object = match name.as_str() {
        "" => qualified,
        name => format!("{qualified} \"{name}\""),
    };
    let resource = match subresource.as_str() {
        "" => resource.clone(),
        subresource => format!("{resource}/{subresource}"),
    };
    let place = match namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    format!(
        "{object} is forbidden: User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}",
        user.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
        .authenticated()
    }

    #[track_caller]
    fn check(user: &User, verb: &str, path: &str, wanted: Result<(), &str>) {
        let attributes = match crate::path::parse(path) {
            Target::Resource(path) => Attributes::of_resource(verb, &path),
            _ => Attributes::of_path(verb, path),
        };
        let found = super::check(user, &attributes).map_err(|status| status.message);
        assert_eq!(found, wanted.map_err(str::to_owned));
    }

    #[test]
    fn masters_may_do_everything() {
        let admin = user("admin", &[GROUP_MASTERS]);
        check(&admin, "delete", "/api/v1/namespaces/a/pods/b", Ok(()));
        check(&admin, "get", "/anything", Ok(()));
    }

    #[test]
    fn everybody_may_read_health_and_version_only() {
        let anybody = User::anonymous();
        check(&anybody, "get", "/readyz", Ok(()));
        check(&anybody, "get", "/version", Ok(()));
        check(
            &anybody,
            "get",
            "/apis",
            Err("forbidden: User \"system:anonymous\" cannot get path \"/apis\""),
        );
    }

    #[test]
    fn those_who_are_known_may_look_at_discovery() {
        let somebody = user("x", &[]);
        check(&somebody, "get", "/apis/apps/v1", Ok(()));
        check(
            &somebody,
            "get",
            "/flotilla.dev/snapshot",
            Err("forbidden: User \"x\" cannot get path \"/flotilla.dev/snapshot\""),
        );
        check(
            &somebody,
            "create",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            Ok(()),
        );
        check(
            &somebody,
            "list",
            "/apis/apps/v1/namespaces/default/deployments",
            Err(
                "deployments.apps is forbidden: User \"x\" cannot list resource \"deployments\" in API group \"apps\" in the namespace \"default\"",
            ),
        );
        check(
            &somebody,
            "get",
            "/api/v1/namespaces/default/pods/web/log",
            Err(
                "pods \"web\" is forbidden: User \"x\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\"",
            ),
        );
    }

    #[test]
    fn nodes_may_read_nodes_and_pods() {
        let node = user("system:node:a", &[GROUP_NODES]);
        check(&node, "watch", "/api/v1/pods", Ok(()));
        check(&node, "get", "/api/v1/nodes/a", Ok(()));
        check(
            &node,
            "list",
            "/api/v1/secrets",
            Err(
                "secrets is forbidden: User \"system:node:a\" cannot list resource \"secrets\" in API group \"\" at the cluster scope",
            ),
        );
    }
}
