//! Static pods, which a node runs because of a file, and their mirrors, which show them to the API.
//!
//! A static pod's uid is a hash of its node, its file and its content. The mirror has a uid of its own, as every
//! object, and carries that hash.

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, Pod, PodSpec, ProjectedVolumeSource, Volume,
};

use crate::field::{FieldErrors, Path};

/// Where a pod comes from: `file` for static pods.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// A static pod's hash, which is its uid.
pub const HASH: &str = "kubernetes.io/config.hash";
/// When the node first saw a static pod.
pub const SEEN: &str = "kubernetes.io/config.seen";
/// On a mirror: the hash of the static pod that it shows.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// The name of the file that says what a static pod is.
pub const FILE: &str = "flotilla.dev/config.file";

/// The source of static pods.
pub const FROM_FILE: &str = "file";

/// Whether a node runs the pod because of a file. Only to be asked about pods that the node itself has marked: what the
/// API says of its own pods proves nothing.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE) == Some(FROM_FILE)
}

/// Whether the pod only shows what a node runs on its own account.
pub fn is_mirror(pod: &Pod) -> bool {
    mirror_of(pod).is_some()
}

/// The uid of the static pod that a mirror shows.
pub fn mirror_of(pod: &Pod) -> Option<&str> {
    annotation(pod, MIRROR)
}

/// The value of an annotation.
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Something in a pod's spec that names another object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectReference {
    /// Where, like `spec.volumes[0].secret`.
    pub field: String,
    /// What, like `secrets`.
    pub resource: &'static str,
}

/// The first thing in a pod's spec for which the API would have to be asked. A static pod has nothing of the kind,
/// because it must start without the API, and because whoever writes its file has nobody's rights.
pub fn object_reference(pod: &Pod) -> Option<ObjectReference> {
    let spec = pod.spec.as_ref()?;
    of_spec(spec)
        .or_else(|| of_containers(spec))
        .or_else(|| first(spec.volumes.iter().flatten(), "spec.volumes", of_volume))
}

fn found(field: impl Into<String>, resource: &'static str) -> Option<ObjectReference> {
    let field = field.into();
    Some(ObjectReference { field, resource })
}

/// The first that is found in a list, with its place in it.
fn first<T>(
    items: impl Iterator<Item = T>,
    list: &str,
    find: impl Fn(T) -> Option<ObjectReference>,
) -> Option<ObjectReference> {
    items.enumerate().find_map(|(index, item)| {
        let inner = find(item)?;
        let field = format!("{list}[{index}].{}", inner.field);
        Some(ObjectReference { field, ..inner })
    })
}

fn of_spec(spec: &PodSpec) -> Option<ObjectReference> {
    let is_set = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    if is_set(&spec.service_account_name) || is_set(&spec.service_account) {
        return found("spec.serviceAccountName", "serviceaccounts");
    }
    if spec
        .image_pull_secrets
        .as_ref()
        .is_some_and(|list| !list.is_empty())
    {
        return found("spec.imagePullSecrets", "secrets");
    }
    if spec.resource_claims.as_ref().is_some_and(|list| !list.is_empty()) {
        return found("spec.resourceClaims", "resourceclaims");
    }
    None
}

fn of_containers(spec: &PodSpec) -> Option<ObjectReference> {
    let init = spec.init_containers.iter().flatten();
    first(init, "spec.initContainers", of_container)
        .or_else(|| first(spec.containers.iter(), "spec.containers", of_container))
}

fn of_container(container: &Container) -> Option<ObjectReference> {
    first(container.env_from.iter().flatten(), "envFrom", of_env_source)
        .or_else(|| first(container.env.iter().flatten(), "env", of_variable))
}

fn of_env_source(source: &EnvFromSource) -> Option<ObjectReference> {
    match (&source.config_map_ref, &source.secret_ref) {
        (Some(_), _) => found("configMapRef", "configmaps"),
        (_, Some(_)) => found("secretRef", "secrets"),
        _ => None,
    }
}

fn of_variable(variable: &EnvVar) -> Option<ObjectReference> {
    let source = variable.value_from.as_ref()?;
    match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(_), _) => found("valueFrom.configMapKeyRef", "configmaps"),
        (_, Some(_)) => found("valueFrom.secretKeyRef", "secrets"),
        _ => None,
    }
}

fn of_volume(volume: &Volume) -> Option<ObjectReference> {
    if volume.secret.is_some() {
        return found("secret", "secrets");
    }
    if volume.config_map.is_some() {
        return found("configMap", "configmaps");
    }
    if volume.persistent_volume_claim.is_some() {
        return found("persistentVolumeClaim", "persistentvolumeclaims");
    }
    if volume.ephemeral.is_some() {
        return found("ephemeral", "persistentvolumeclaims");
    }
    let csi = volume.csi.as_ref();
    if csi.is_some_and(|csi| csi.node_publish_secret_ref.is_some()) {
        return found("csi.nodePublishSecretRef", "secrets");
    }
    volume.projected.as_ref().and_then(of_projection)
}

fn of_projection(projected: &ProjectedVolumeSource) -> Option<ObjectReference> {
    let sources = projected.sources.iter().flatten();
    first(sources, "projected.sources", |source| {
        if source.secret.is_some() {
            found("secret", "secrets")
        } else if source.config_map.is_some() {
            found("configMap", "configmaps")
        } else if source.service_account_token.is_some() {
            found("serviceAccountToken", "serviceaccounts")
        } else if source.cluster_trust_bundle.is_some() {
            found("clusterTrustBundle", "clustertrustbundles")
        } else {
            None
        }
    })
}

/// No pod becomes a mirror, or ceases to be one.
pub(crate) fn validate_update(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    let meta = Path::root("metadata");
    let annotations = meta.child("annotations");
    let path = annotations.key(MIRROR);
    match (mirror_of(new), mirror_of(old)) {
        (new, old) if new == old => {}
        (_, None) => errors.forbidden(path, "may not add mirror pod annotation"),
        _ => errors.forbidden(path, "may not remove or update mirror pod annotation"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: &str, expected: &str) {
        let pod: Pod = serde_json::from_str(&format!(r#"{{"metadata":{{}},"spec":{spec}}}"#)).unwrap();
        let told = object_reference(&pod).map(|found| format!("{}: {}", found.field, found.resource));
        assert_eq!(told.unwrap_or_default(), expected);
    }

    #[test]
    fn whatever_names_another_object_is_found() {
        check(
            r#"{"containers":[],"serviceAccountName":"a"}"#,
            "spec.serviceAccountName: serviceaccounts",
        );
        check(
            r#"{"containers":[],"imagePullSecrets":[{"name":"a"}]}"#,
            "spec.imagePullSecrets: secrets",
        );
        check(
            r#"{"containers":[{"name":"a"},{"name":"b","env":[{"name":"X","value":"1"},{"name":"Y","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]}]}"#,
            "spec.containers[1].env[1].valueFrom.secretKeyRef: secrets",
        );
        check(
            r#"{"containers":[],"initContainers":[{"name":"i","envFrom":[{"configMapRef":{"name":"m"}}]}]}"#,
            "spec.initContainers[0].envFrom[0].configMapRef: configmaps",
        );
        for (volume, expected) in [
            (r#""secret":{"secretName":"s"}"#, "secret: secrets"),
            (r#""configMap":{"name":"m"}"#, "configMap: configmaps"),
            (
                r#""persistentVolumeClaim":{"claimName":"c"}"#,
                "persistentVolumeClaim: persistentvolumeclaims",
            ),
            (
                r#""projected":{"sources":[{"downwardAPI":{}},{"serviceAccountToken":{"path":"t"}}]}"#,
                "projected.sources[1].serviceAccountToken: serviceaccounts",
            ),
        ] {
            let spec = format!(r#"{{"containers":[],"volumes":[{{"name":"v",{volume}}}]}}"#);
            check(&spec, &format!("spec.volumes[0].{expected}"));
        }
    }

    #[test]
    fn what_a_node_has_itself_is_no_reference() {
        check(
            r#"{"containers":[{"name":"a","env":[{"name":"N","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}]}],
                "volumes":[{"name":"v","hostPath":{"path":"/x"}},{"name":"w","emptyDir":{}},{"name":"d","downwardAPI":{}}]}"#,
            "",
        );
    }

    #[test]
    fn no_pod_becomes_a_mirror_or_ceases_to_be_one() {
        let pod = |hash: Option<&str>| {
            let mut pod = Pod::default();
            let hash = hash.map(|hash| (MIRROR.to_owned(), hash.to_owned()));
            pod.metadata.annotations = Some(hash.into_iter().collect());
            pod
        };
        let check = |new: Option<&str>, old: Option<&str>, expected: &str| {
            let mut errors = FieldErrors::default();
            validate_update(&pod(new), &pod(old), &mut errors);
            let told: Vec<String> = errors.into_vec().iter().map(crate::FieldError::body).collect();
            assert_eq!(told.join(" "), expected);
        };
        check(None, None, "");
        check(Some("a"), Some("a"), "");
        check(Some("a"), None, "Forbidden: may not add mirror pod annotation");
        check(
            None,
            Some("a"),
            "Forbidden: may not remove or update mirror pod annotation",
        );
        check(
            Some("b"),
            Some("a"),
            "Forbidden: may not remove or update mirror pod annotation",
        );
    }
}
