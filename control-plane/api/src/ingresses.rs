//! What an Ingress means: whose it is, and what it refers to. Pure.

use k8s_openapi::api::networking::v1::{Ingress, IngressBackend, IngressClass, IngressClassSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Ingresses of classes of this controller are served by the nodes themselves.
pub const CONTROLLER: &str = "flotilla.dev/ingress";
/// The class that every cluster starts with.
pub const CLASS: &str = "flotilla";
/// Names the class where the field does not; older than the field.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// On a node: the ports at which its proxy listens, `80,443`; empty while it does not.
pub const PORTS_ANNOTATION: &str = "ingress.flotilla.dev/ports";
/// On an ingress: `"true"` sends plain requests to HTTPS.
pub const REDIRECT_ANNOTATION: &str = "ingress.flotilla.dev/ssl-redirect";
/// The type of secrets that hold a certificate and its key.
pub const TLS_SECRET_TYPE: &str = "kubernetes.io/tls";

const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// The class that every cluster starts with, the default one.
pub fn flotilla_class() -> IngressClass {
    IngressClass {
        metadata: ObjectMeta {
            name: Some(CLASS.to_owned()),
            annotations: Some([(DEFAULT_ANNOTATION.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(IngressClassSpec {
            controller: Some(CONTROLLER.to_owned()),
            parameters: None,
        }),
    }
}

/// Whether ingresses that name no class get this one.
pub fn is_default(class: &IngressClass) -> bool {
    annotation(&class.metadata, DEFAULT_ANNOTATION) == Some("true")
}

/// The default class; of several the newest, of several of the same second the first by name, as in Kubernetes.
pub fn default_class<'a>(classes: impl IntoIterator<Item = &'a IngressClass>) -> Option<&'a str> {
    let defaults = classes.into_iter().filter(|class| is_default(class));
    let newest = defaults.max_by_key(|class| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, std::cmp::Reverse(class.metadata.name.as_deref()))
    });
    newest?.metadata.name.as_deref()
}

/// Whether ingresses of this class are served by the nodes.
pub fn is_ours(class: &IngressClass) -> bool {
    let spec = class.spec.as_ref();
    spec.and_then(|spec| spec.controller.as_deref()) == Some(CONTROLLER)
}

/// The class that an ingress names, by its field or the older annotation.
pub fn class_name(ingress: &Ingress) -> Option<&str> {
    let field = ingress
        .spec
        .as_ref()
        .and_then(|spec| spec.ingress_class_name.as_deref());
    field.or_else(|| annotation(&ingress.metadata, CLASS_ANNOTATION))
}

/// Names of the secrets, in the ingress's own namespace, that hold its certificates.
pub fn tls_secrets(ingress: &Ingress) -> impl Iterator<Item = &str> {
    let spec = ingress.spec.iter();
    let named = spec.flat_map(|spec| spec.tls.iter().flatten());
    named
        .filter_map(|tls| tls.secret_name.as_deref())
        .filter(|name| !name.is_empty())
}

/// Everything that an ingress leads to, the default first.
pub fn backends(ingress: &Ingress) -> impl Iterator<Item = &IngressBackend> {
    ingress.spec.iter().flat_map(|spec| {
        let rules = spec.rules.iter().flatten();
        let paths = rules.flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths));
        spec.default_backend.iter().chain(paths.map(|path| &path.backend))
    })
}

/// Whether plain requests are sent to HTTPS.
pub fn redirects(ingress: &Ingress) -> bool {
    annotation(&ingress.metadata, REDIRECT_ANNOTATION) == Some("true")
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(name: &str, default: &str, created: &str) -> IngressClass {
        let metadata = json!({
            "name": name, "creationTimestamp": created, "annotations": {DEFAULT_ANNOTATION: default},
        });
        serde_json::from_value(json!({"metadata": metadata, "spec": {"controller": "a.b/c"}})).unwrap()
    }

    fn ingress(metadata: &Value, spec: &Value) -> Ingress {
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn the_newest_default_class_is_the_default() {
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let classes = [
            class("old", "true", early),
            class("b", "true", late),
            class("a", "true", late),
            class("z", "false", late),
        ];
        assert_eq!(default_class(&classes), Some("a"));
        assert_eq!(default_class(&classes[..1]), Some("old"));
        assert_eq!(default_class(&classes[3..]), None);
        assert!(is_default(&flotilla_class()) && is_ours(&flotilla_class()));
        assert!(!is_ours(&classes[0]));
    }

    #[test]
    fn the_class_is_named_by_the_field_or_the_older_annotation() {
        let annotated = json!({"annotations": {CLASS_ANNOTATION: "old"}});
        let field = json!({"ingressClassName": "new"});
        assert_eq!(class_name(&ingress(&json!({}), &field)), Some("new"));
        assert_eq!(class_name(&ingress(&annotated, &json!({}))), Some("old"));
        assert_eq!(class_name(&ingress(&json!({}), &json!({}))), None);
    }

    #[test]
    fn an_ingress_refers_to_secrets_and_services() {
        let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let spec = json!({
            "defaultBackend": backend("default"),
            "rules": [
                {"host": "a"},
                {"http": {"paths": [{"pathType": "Prefix", "path": "/", "backend": backend("web")}]}},
            ],
            "tls": [{"secretName": "one"}, {"hosts": ["a"]}, {"secretName": ""}],
        });
        let ingress = ingress(&json!({}), &spec);
        let services: Vec<&str> = backends(&ingress)
            .map(|backend| backend.service.as_ref().unwrap().name.as_str())
            .collect();
        assert_eq!(services, ["default", "web"]);
        assert_eq!(tls_secrets(&ingress).collect::<Vec<_>>(), ["one"]);
    }
}
