//! Which lists of the built-in kinds are merged by element, and by which key.
//!
//! Pure. These are the `x-kubernetes-patch-*` extensions of Kubernetes' OpenAPI document.

/// How two lists become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ListKind {
    /// The new one replaces the old one.
    Atomic,
    /// Elements are their own identity.
    Set,
    /// Elements are maps that are told apart by a field.
    Keyed(&'static str),
}

/// Whether Kubernetes itself defines the kinds of this API version.
pub(super) fn is_built_in(api_version: &str) -> bool {
    match api_version.split_once('/') {
        None => true,
        Some((group, _)) => {
            !group.contains('.') || group.ends_with(".k8s.io") && group != "gateway.networking.k8s.io"
        }
    }
}

/// How the list at a path is merged.
pub(super) fn list_kind(path: &[&str], service: bool) -> ListKind {
    let (Some(name), parent) = (path.last(), path.iter().rev().nth(1)) else {
        return ListKind::Atomic;
    };
    match (*name, parent.copied()) {
        ("finalizers", Some("metadata")) => ListKind::Set,
        ("ownerReferences", Some("metadata")) => ListKind::Keyed("uid"),
        (
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "volumes"
            | "imagePullSecrets"
            | "schedulingGates"
            | "resourceClaims",
            Some("spec"),
        )
        | ("env", Some("containers" | "initContainers" | "ephemeralContainers"))
        | ("secrets" | "imagePullSecrets" | "webhooks", None) => ListKind::Keyed("name"),
        ("ports", Some("spec")) if service => ListKind::Keyed("port"),
        ("ports", Some("containers" | "initContainers" | "ephemeralContainers")) => {
            ListKind::Keyed("containerPort")
        }
        ("volumeMounts", _) => ListKind::Keyed("mountPath"),
        ("volumeDevices", _) => ListKind::Keyed("devicePath"),
        ("hostAliases", Some("spec")) => ListKind::Keyed("ip"),
        ("topologySpreadConstraints", Some("spec")) => ListKind::Keyed("topologyKey"),
        ("conditions", Some("status")) => ListKind::Keyed("type"),
        _ => ListKind::Atomic,
    }
}

/// Maps that are unions: a change drops the keys that the manifest does not give (`retainKeys`).
pub(super) fn keeps_only_given_keys(path: &[&str]) -> bool {
    matches!(path, ["spec", "strategy" | "updateStrategy"]) || path.ends_with(&["spec", "volumes"])
}
