//! The variables that tell containers of the services around them. Pure.

use k8s_openapi::api::core::v1::{Pod, Service};

/// What variables tell of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAddress {
    name: Box<str>,
    cluster_ip: Box<str>,
    ports: Box<[ServicePort]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ServicePort {
    name: Box<str>,
    port: i32,
    protocol: Box<str>,
}

impl ServiceAddress {
    /// Nothing for services without an address: headless ones and other names.
    pub fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let cluster_ip = spec
            .cluster_ip
            .as_deref()
            .filter(|ip| !matches!(*ip, "" | "None"))?;
        let port = |port: &k8s_openapi::api::core::v1::ServicePort| ServicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            port: port.port,
            protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
        };
        let ports: Box<[ServicePort]> = spec.ports.iter().flatten().map(port).collect();
        (!ports.is_empty()).then(|| Self {
            name: service.metadata.name.as_deref().unwrap_or_default().into(),
            cluster_ip: cluster_ip.into(),
            ports,
        })
    }
}

/// The variables for a pod: of `kubernetes`, by which it reaches the API, and of its namespace's services unless it
/// wants none (`enableServiceLinks: false`).
pub fn service_variables<'a>(
    pod: &Pod,
    kubernetes: Option<&'a ServiceAddress>,
    own_namespace: impl IntoIterator<Item = &'a ServiceAddress>,
) -> Vec<(String, String)> {
    let links = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.enable_service_links)
        .unwrap_or(true);
    let is_other = |service: &&ServiceAddress| Some(&service.name) != kubernetes.map(|own| &own.name);
    let linked = own_namespace
        .into_iter()
        .filter(|service| links && is_other(service));
    kubernetes.into_iter().chain(linked).flat_map(variables).collect()
}

/// Those of Kubernetes, and those that links of the old Docker made.
fn variables(service: &ServiceAddress) -> Vec<(String, String)> {
    let prefix = upper(&service.name);
    let ip = &service.cluster_ip;
    let mut all = vec![(format!("{prefix}_SERVICE_HOST"), ip.to_string())];
    let first = service.ports.first();
    all.extend(first.map(|port| (format!("{prefix}_SERVICE_PORT"), port.port.to_string())));
    let named = service.ports.iter().filter(|port| !port.name.is_empty());
    all.extend(named.map(|port| {
        (
            format!("{prefix}_SERVICE_PORT_{}", upper(&port.name)),
            port.port.to_string(),
        )
    }));
    let url = |port: &ServicePort| format!("{}://{ip}:{}", port.protocol.to_lowercase(), port.port);
    all.extend(first.map(|port| (format!("{prefix}_PORT"), url(port))));
    for port in &service.ports {
        let link = format!("{prefix}_PORT_{}_{}", port.port, port.protocol.to_uppercase());
        all.push((link.clone(), url(port)));
        all.push((format!("{link}_PROTO"), port.protocol.to_lowercase()));
        all.push((format!("{link}_PORT"), port.port.to_string()));
        all.push((format!("{link}_ADDR"), ip.to_string()));
    }
    all
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, ip: &str, port: i32, port_name: &str) -> Option<ServiceAddress> {
        let ports = json!([{"name": port_name, "port": port, "protocol": "TCP"}]);
        let service = json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": ports}});
        ServiceAddress::of(&serde_json::from_value(service).unwrap())
    }

    fn told(links: bool, own: &[ServiceAddress]) -> String {
        let pod = json!({"spec": {"containers": [], "enableServiceLinks": links}});
        let kubernetes = service("kubernetes", "10.43.0.1", 443, "https");
        let all = service_variables(&serde_json::from_value(pod).unwrap(), kubernetes.as_ref(), own);
        all.into_iter()
            .map(|(name, value)| format!("{name}={value} "))
            .collect()
    }

    #[test]
    fn every_pod_learns_where_the_api_is() {
        let expected = "KUBERNETES_SERVICE_HOST=10.43.0.1 KUBERNETES_SERVICE_PORT=443 \
                        KUBERNETES_SERVICE_PORT_HTTPS=443 KUBERNETES_PORT=tcp://10.43.0.1:443 \
                        KUBERNETES_PORT_443_TCP=tcp://10.43.0.1:443 KUBERNETES_PORT_443_TCP_PROTO=tcp \
                        KUBERNETES_PORT_443_TCP_PORT=443 KUBERNETES_PORT_443_TCP_ADDR=10.43.0.1 ";
        let own = [
            service("kubernetes", "10.43.0.1", 443, "").unwrap(),
            service("my-db", "10.43.7.7", 5432, "").unwrap(),
        ];
        assert_eq!(told(false, &own), expected);
        let linked = told(true, &own);
        let rest = linked.strip_prefix(expected).unwrap();
        assert!(
            rest.starts_with("MY_DB_SERVICE_HOST=10.43.7.7 MY_DB_SERVICE_PORT=5432 MY_DB_PORT=tcp://"),
            "{rest}"
        );
    }

    #[test]
    fn services_without_an_address_are_not_told() {
        assert_eq!(service("db", "None", 1, ""), None);
        assert_eq!(service("db", "", 1, ""), None);
    }
}
