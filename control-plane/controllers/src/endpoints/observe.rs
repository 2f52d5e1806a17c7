//! What a pod is to a service. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Whether the service is to have endpoints from pods at all.
pub(super) fn has_selector(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() != Some("ExternalName")
            && spec
                .selector
                .as_ref()
                .is_some_and(|selector| !selector.is_empty())
    })
}

/// Whether the service selects the pod.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    let wanted = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = pod.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
    has_selector(service) && wanted.is_some_and(|wanted| wanted.iter().all(has))
}

/// Whether the service goes without an address.
pub(super) fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

/// Whether nothing changed that a service tells of a pod.
pub(super) fn is_same_endpoint(old: &Pod, new: &Pod) -> bool {
    let told = |pod: &Pod| {
        let spec = pod.spec.clone().unwrap_or_default();
        let place = (spec.node_name, spec.hostname, spec.subdomain);
        let meta = &pod.metadata;
        (
            addresses(pod),
            is_candidate(pod),
            pods::is_ready(pod),
            pods::is_deleting(pod),
            place,
            meta.uid.clone(),
        )
    };
    old.metadata.labels == new.metadata.labels && told(old) == told(new)
}

/// Whether the pod may be an endpoint: it runs or will, and can be reached.
pub(super) fn is_candidate(pod: &Pod) -> bool {
    !pods::is_finished(pod) && !addresses(pod).is_empty() && !pods::node_name(pod).is_empty()
}

fn addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref();
    let listed = status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    let mut all: Vec<String> = listed.map(|ip| ip.ip.clone()).collect();
    if all.is_empty() {
        all.extend(status.and_then(|status| status.pod_ip.clone()));
    }
    all.retain(|ip| !ip.is_empty());
    all
}

/// The pod's address of the family that slices are kept for; IPv4 so far.
pub(super) fn address(pod: &Pod) -> Option<String> {
    addresses(pod)
        .into_iter()
        .find(|ip| ip.parse::<std::net::Ipv4Addr>().is_ok())
}

/// Ports at which the pod serves the service; those that it does not have are left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let all = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = |port: &ServicePort| {
        Some(EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target(port, pod)?),
            protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
        })
    };
    all.filter_map(port).collect()
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let open = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let mut named = open.filter(|open| {
        open.name.as_ref() == Some(name)
            && protocol(open.protocol.as_deref()) == protocol(port.protocol.as_deref())
    });
    named.next().map(|open| open.container_port)
}

/// The pod as an entry of a slice.
pub(super) fn endpoint(service: &Service, pod: &Pod, node: Option<&Node>) -> Option<Endpoint> {
    let (is_serving, is_terminating) = (pods::is_ready(pod), pods::is_deleting(pod));
    let spec = service.spec.as_ref()?;
    let publishes_all = spec.publish_not_ready_addresses.unwrap_or(false);
    let zone = zone_of(node);
    Some(Endpoint {
        addresses: vec![address(pod)?],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_all || (is_serving && !is_terminating)),
            serving: Some(is_serving),
            terminating: Some(is_terminating),
        }),
        hints: hints(spec.traffic_distribution.as_deref(), zone, pods::node_name(pod)),
        hostname: hostname(service, pod),
        node_name: Some(pods::node_name(pod).to_owned()),
        target_ref: Some(reference(pod)),
        zone: zone.map(str::to_owned),
        ..Endpoint::default()
    })
}

fn zone_of(node: Option<&Node>) -> Option<&str> {
    let labels = node?.metadata.labels.as_ref()?;
    labels
        .get(ZONE_LABEL)
        .map(String::as_str)
        .filter(|zone| !zone.is_empty())
}

/// Where the endpoint is best used from, for services that want their traffic kept near.
fn hints(distribution: Option<&str>, zone: Option<&str>, node: &str) -> Option<EndpointHints> {
    let for_zones = || {
        zone.map(|zone| {
            vec![ForZone {
                name: zone.to_owned(),
            }]
        })
    };
    match distribution {
        Some("PreferClose" | "PreferSameZone") => for_zones().map(|for_zones| EndpointHints {
            for_zones: Some(for_zones),
            ..EndpointHints::default()
        }),
        Some("PreferSameNode") => Some(EndpointHints {
            for_nodes: Some(vec![ForNode {
                name: node.to_owned(),
            }]),
            for_zones: for_zones(),
        }),
        _ => None,
    }
}

/// The pod's own name below the service's, if it asks for one.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let is_named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname
        .clone()
        .filter(|hostname| is_named && !hostname.is_empty())
}

pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The service's own labels, and whether it is headless.
pub(super) fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    for reserved in [super::SERVICE_LABEL, super::MANAGED_BY, super::HEADLESS_LABEL] {
        labels.remove(reserved);
    }
    if is_headless(service) {
        labels.insert(super::HEADLESS_LABEL.to_owned(), String::new());
    }
    labels
}
