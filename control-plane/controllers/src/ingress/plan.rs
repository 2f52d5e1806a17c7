//! At which addresses an ingress is served, and what is wrong with it. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use flotilla_api::ingresses;
use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::networking::v1::{
    Ingress, IngressBackend, IngressLoadBalancerIngress, IngressLoadBalancerStatus, ServiceBackendPort,
};

use crate::balancer::{plan::address, serves};

/// What an ingress refers to is looked up here.
pub(super) trait Surroundings {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>>;
}

/// Something that keeps an ingress from working as it is meant: a reason in CamelCase, and a sentence.
pub(super) type Problem = (&'static str, String);

/// Whether the node's proxy is open to clients and the node may receive them.
pub(super) fn is_serving(node: &Node) -> bool {
    let annotations = node.metadata.annotations.as_ref();
    let ports = annotations.and_then(|all| all.get(ingresses::PORTS_ANNOTATION));
    serves(node) && ports.is_some_and(|ports| !ports.is_empty())
}

/// Addresses of the nodes that serve ingresses.
pub(super) fn addresses<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<Ipv4Addr> {
    let own: BTreeSet<Ipv4Addr> = nodes
        .filter(|node| is_serving(node))
        .filter_map(address)
        .collect();
    own.into_iter().collect()
}

/// Writes the addresses into the status; says whether that changed it.
pub(super) fn set_addresses(ingress: &mut Ingress, addresses: &[Ipv4Addr]) -> bool {
    let one = |address: &Ipv4Addr| IngressLoadBalancerIngress {
        ip: Some(address.to_string()),
        ..IngressLoadBalancerIngress::default()
    };
    let wanted = Some(IngressLoadBalancerStatus {
        ingress: (!addresses.is_empty()).then(|| addresses.iter().map(one).collect()),
    });
    let status = ingress.status.get_or_insert_default();
    let changed = status.load_balancer != wanted;
    status.load_balancer = wanted;
    changed
}

/// What is wrong with the services and secrets that an ingress names.
pub(super) fn problems(ingress: &Ingress, around: &impl Surroundings) -> BTreeSet<Problem> {
    let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
    let secrets = ingresses::tls_secrets(ingress).filter_map(|name| secret_problem(namespace, name, around));
    let backends = ingresses::backends(ingress);
    let backends = backends.filter_map(|backend| backend_problem(namespace, backend, around));
    secrets.chain(backends).collect()
}

fn secret_problem(namespace: &str, name: &str, around: &impl Surroundings) -> Option<Problem> {
    let Some(secret) = around.secret(namespace, name) else {
        let message = format!(
            "secret {namespace}/{name} does not exist: clients see a self-signed certificate until it does"
        );
        return Some(("SecretNotFound", message));
    };
    let type_ = secret.type_.as_deref().unwrap_or_default();
    (type_ != ingresses::TLS_SECRET_TYPE).then(|| {
        let message = format!(
            "secret {namespace}/{name} has type {type_:?} and is not used: certificates come from secrets of type {}",
            ingresses::TLS_SECRET_TYPE
        );
        ("SecretTypeInvalid", message)
    })
}

fn backend_problem(namespace: &str, backend: &IngressBackend, around: &impl Surroundings) -> Option<Problem> {
    if let Some(resource) = &backend.resource {
        let message = format!(
            "{} {} is no Service, and nothing else can be served: requests for it are answered with 503",
            resource.kind, resource.name
        );
        return Some(("BackendNotSupported", message));
    }
    let wanted = backend.service.as_ref()?;
    let name = &wanted.name;
    let Some(service) = around.service(namespace, name) else {
        let message =
            format!("service {namespace}/{name} does not exist: requests for it are answered with 503");
        return Some(("ServiceNotFound", message));
    };
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        let message = format!(
            "service {namespace}/{name} is an ExternalName, which has no endpoints to send requests to"
        );
        return Some(("BackendNotSupported", message));
    }
    let port = wanted.port.clone().unwrap_or_default();
    let has_port = spec.ports.iter().flatten().any(|known| {
        let is_tcp = known.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let is_named = port.name.is_some() && known.name == port.name;
        is_tcp && (is_named || Some(known.port) == port.number)
    });
    (!has_port).then(|| {
        let message = format!(
            "service {namespace}/{name} has no TCP port {}: requests for it are answered with 503",
            shown(&port)
        );
        ("ServicePortNotFound", message)
    })
}

fn shown(port: &ServiceBackendPort) -> String {
    let number = || port.number.map(|number| number.to_string());
    port.name.clone().or_else(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Fixed {
        services: Vec<Value>,
        secrets: Vec<Value>,
    }

    fn named<T: serde::de::DeserializeOwned>(all: &[Value], namespace: &str, name: &str) -> Option<Arc<T>> {
        let found = all
            .iter()
            .find(|one| one["metadata"] == json!({"namespace": namespace, "name": name}))?;
        Some(Arc::new(serde_json::from_value(found.clone()).unwrap()))
    }

    impl Surroundings for Fixed {
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
            named(&self.services, namespace, name)
        }

        fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
            named(&self.secrets, namespace, name)
        }
    }

    fn found(backend: &Value, secret: &str) -> Vec<String> {
        let meta = |name: &str| json!({"namespace": "a", "name": name});
        let around = Fixed {
            services: vec![
                json!({"metadata": meta("web"), "spec": {"ports": [
                    {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"},
                ]}}),
                json!({"metadata": meta("away"), "spec": {"type": "ExternalName", "externalName": "x.test"}}),
            ],
            secrets: vec![
                json!({"metadata": meta("tls"), "type": "kubernetes.io/tls"}),
                json!({"metadata": meta("opaque"), "type": "Opaque"}),
            ],
        };
        let path = json!({"pathType": "Prefix", "path": "/", "backend": backend});
        let spec = json!({"rules": [{"http": {"paths": [path]}}], "tls": [{"secretName": secret}]});
        let ingress = serde_json::from_value(json!({"metadata": meta("front"), "spec": spec})).unwrap();
        let problems = problems(&ingress, &around);
        problems
            .into_iter()
            .map(|(reason, message)| format!("{reason}: {}", message.split(':').next().unwrap()))
            .collect()
    }

    fn service(name: &str, port: &Value) -> Value {
        json!({"service": {"name": name, "port": port}})
    }

    #[test]
    fn what_an_ingress_names_has_to_be_there() {
        let (number, name) = (json!({"number": 80}), json!({"name": "http"}));
        assert_eq!(found(&service("web", &number), "tls"), [""; 0]);
        assert_eq!(found(&service("web", &name), "tls"), [""; 0]);
        for (backend, secret, expected) in [
            (
                service("gone", &number),
                "tls",
                "ServiceNotFound: service a/gone does not exist",
            ),
            (
                service("web", &json!({"number": 81})),
                "tls",
                "ServicePortNotFound: service a/web has no TCP port 81",
            ),
            (
                service("web", &json!({"name": "dns"})),
                "tls",
                "ServicePortNotFound: service a/web has no TCP port dns",
            ),
            (
                service("away", &number),
                "tls",
                "BackendNotSupported: service a/away is an ExternalName, which has no endpoints to send requests to",
            ),
            (
                json!({"resource": {"kind": "Bucket", "name": "b"}}),
                "tls",
                "BackendNotSupported: Bucket b is no Service, and nothing else can be served",
            ),
            (
                service("web", &number),
                "gone",
                "SecretNotFound: secret a/gone does not exist",
            ),
            (
                service("web", &number),
                "opaque",
                "SecretTypeInvalid: secret a/opaque has type \"Opaque\" and is not used",
            ),
        ] {
            assert_eq!(found(&backend, secret), [expected]);
        }
    }

    fn node(address: &str, ready: &str, ports: &str, labels: &Value) -> Node {
        let annotations = json!({ingresses::PORTS_ANNOTATION: ports});
        let node = json!({
            "metadata": {"name": address, "labels": labels, "annotations": annotations},
            "status": {
                "addresses": [{"type": "InternalIP", "address": address}],
                "conditions": [{"type": "Ready", "status": ready}],
            },
        });
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn ready_nodes_whose_proxy_is_open_lend_their_addresses() {
        let excluded = json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
        let nodes = [
            node("10.0.0.10", "True", "80,443", &json!({})),
            node("10.0.0.9", "True", "8080", &json!({})),
            node("10.0.0.1", "False", "80,443", &json!({})),
            node("10.0.0.2", "True", "", &json!({})),
            node("10.0.0.3", "True", "80", &excluded),
        ];
        let addresses = addresses(nodes.iter());
        let shown: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        assert_eq!(shown, ["10.0.0.9", "10.0.0.10"]);
        let mut ingress = Ingress::default();
        assert!(set_addresses(&mut ingress, &addresses));
        assert!(!set_addresses(&mut ingress, &addresses));
        assert!(set_addresses(&mut ingress, &[]));
        assert_eq!(ingress.status.unwrap().load_balancer.unwrap().ingress, None);
    }
}
