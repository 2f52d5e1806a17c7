//! Service

mod validate;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ClientIPConfig, Service, ServicePort, ServiceSpec, ServiceStatus, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::builder::{Builder, age_cell, name_cell};
use crate::kind::{Column, Kind, SubresourceInfo};
use crate::names;
use crate::selector::LabelSelector;

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Type", "Type determines how the Service is exposed."),
    Column::text("Cluster-IP", "The address of the service within the cluster."),
    Column::text("External-IP", "Addresses of the service outside of the cluster."),
    Column::text("Port(s)", "The list of ports that are exposed by this service."),
    Column::AGE,
    Column::wide(
        "Selector",
        "Route service traffic to pods with label keys and values matching this selector.",
    ),
];
const SUBRESOURCES: &[SubresourceInfo] = &[super::status("", "v1", "Service")];
const CLIENT_AFFINITY_SECONDS: i32 = 10_800;

pub(crate) fn kind() -> Kind {
    Builder::<Service>::namespaced("service")
        .short_names(&["svc"])
        .categories(&["all"])
        .subresources(SUBRESOURCES)
        .columns(COLUMNS, cells)
        .fields(&[
            ("spec.clusterIP", |service| {
                service
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.cluster_ip.clone())
                    .unwrap_or_default()
            }),
            ("spec.type", |service| {
                service
                    .spec
                    .as_ref()
                    .map(|spec| type_of(spec).to_owned())
                    .unwrap_or_default()
            }),
        ])
        .name_rule(names::label_1035)
        .defaults(set_defaults)
        .status(|service| &service.status, |service| &mut service.status)
        .on_create(|service| service.status = Some(no_load_balancer()))
        .on_update(keep_addresses)
        .validate(validate::validate)
        .validate_update(validate::validate_update)
        .build()
}

fn no_load_balancer() -> ServiceStatus {
    ServiceStatus {
        load_balancer: Some(Default::default()),
        ..ServiceStatus::default()
    }
}

fn type_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn text(field: &mut Option<String>, default: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(default.to_owned());
    }
}

fn set_defaults(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    text(&mut spec.type_, "ClusterIP");
    text(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("ClientIP") => {
            let config = spec
                .session_affinity_config
                .get_or_insert_with(SessionAffinityConfig::default);
            let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
            client.timeout_seconds.get_or_insert(CLIENT_AFFINITY_SECONDS);
        }
        _ => spec.session_affinity_config = None,
    }
    for port in spec.ports.iter_mut().flatten() {
        set_port_defaults(port);
    }
    set_type_defaults(spec);
}

fn set_port_defaults(port: &mut ServicePort) {
    text(&mut port.protocol, "TCP");
    let unset = match &port.target_port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::Int(_)) => false,
        Some(IntOrString::String(name)) => name.is_empty(),
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

/// What depends on the type: policies, and address families, of which there is only IPv4 so far.
fn set_type_defaults(spec: &mut ServiceSpec) {
    let type_ = type_of(spec).to_owned();
    if type_ == "ExternalName" {
        return;
    }
    if is_external(spec) {
        text(&mut spec.external_traffic_policy, "Cluster");
    }
    if type_ == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    text(&mut spec.internal_traffic_policy, "Cluster");
    text(&mut spec.ip_family_policy, "SingleStack");
    spec.ip_families.get_or_insert_with(|| vec!["IPv4".into()]);
    let first = spec.cluster_ips.iter().flatten().next().cloned();
    if spec.cluster_ip.as_deref().is_none_or(str::is_empty) {
        spec.cluster_ip = first;
    } else if first.is_none() {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
}

/// Whether the service is reached from outside of the cluster.
fn is_external(spec: &ServiceSpec) -> bool {
    let has_addresses = spec.external_ips.as_ref().is_some_and(|list| !list.is_empty());
    matches!(type_of(spec), "NodePort" | "LoadBalancer") || (type_of(spec) == "ClusterIP" && has_addresses)
}

fn has_address(spec: &ServiceSpec) -> bool {
    type_of(spec) != "ExternalName"
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    match type_of(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn has_health_check(spec: &ServiceSpec) -> bool {
    type_of(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// An update that does not name what was allocated keeps it; a change of type gives up what the new one has no use
/// for, unless the update says otherwise.
fn keep_addresses(new: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (&mut new.spec, &old.spec) else {
        return;
    };
    settle_address(new, old);
    settle_node_ports(new, old);
    match (has_health_check(new), has_health_check(old)) {
        (true, true) if new.health_check_node_port.unwrap_or(0) == 0 => {
            new.health_check_node_port = old.health_check_node_port;
        }
        (false, true) if new.health_check_node_port == old.health_check_node_port => {
            new.health_check_node_port = None;
        }
        _ => {}
    }
    if type_of(old) == "LoadBalancer" && type_of(new) != "LoadBalancer" {
        new.allocate_load_balancer_node_ports = None;
        new.load_balancer_class = None;
    }
    if is_external(old) && !is_external(new) && new.external_traffic_policy == old.external_traffic_policy {
        new.external_traffic_policy = None;
    }
}

fn settle_address(new: &mut ServiceSpec, old: &ServiceSpec) {
    let is_unset = new.cluster_ip.as_deref().is_none_or(str::is_empty);
    match (has_address(new), has_address(old)) {
        (true, true) if is_unset => {
            new.cluster_ip.clone_from(&old.cluster_ip);
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        (false, true) if new.cluster_ip == old.cluster_ip || is_unset => {
            new.cluster_ip = None;
            new.cluster_ips = None;
            new.ip_families = None;
            new.ip_family_policy = None;
        }
        _ => {}
    }
}

fn settle_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let old_ports = || old.ports.iter().flatten();
    match (has_node_ports(new), has_node_ports(old)) {
        (true, true) => {
            let lacking = |port: &&mut ServicePort| port.node_port.unwrap_or(0) == 0;
            for port in new.ports.iter_mut().flatten().filter(lacking) {
                let same = |other: &&ServicePort| other.port == port.port && other.protocol == port.protocol;
                port.node_port = old_ports().find(same).and_then(|other| other.node_port);
            }
        }
        (false, true) => {
            for port in new.ports.iter_mut().flatten() {
                if old_ports().any(|other| other.node_port == port.node_port) {
                    port.node_port = None;
                }
            }
        }
        _ => {}
    }
}

fn cells(service: &Service, now: Timestamp) -> Vec<Value> {
    let spec = service.spec.clone().unwrap_or_default();
    let cluster_ip = spec
        .cluster_ips
        .iter()
        .flatten()
        .next()
        .or(spec.cluster_ip.as_ref());
    let cluster_ip = cluster_ip
        .filter(|ip| !ip.is_empty())
        .map_or("<none>", String::as_str);
    vec![
        name_cell(&service.metadata),
        type_of(&spec).into(),
        cluster_ip.into(),
        external_ip(service, &spec).into(),
        ports_text(spec.ports.as_deref().unwrap_or_default()).into(),
        age_cell(&service.metadata, now),
        LabelSelector::from_map(spec.selector.as_ref()).to_string().into(),
    ]
}

fn external_ip(service: &Service, spec: &ServiceSpec) -> String {
    let mut addresses = spec.external_ips.clone().unwrap_or_default();
    match type_of(spec) {
        "ExternalName" => return spec.external_name.clone().unwrap_or_default(),
        "LoadBalancer" => {
            let balancer = service
                .status
                .as_ref()
                .and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer
                .and_then(|balancer| balancer.ingress.as_deref())
                .unwrap_or_default();
            let found = ingress
                .iter()
                .filter_map(|one| one.ip.clone().or(one.hostname.clone()));
            addresses.splice(0..0, found);
            if addresses.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => {}
    }
    if addresses.is_empty() {
        "<none>".to_owned()
    } else {
        addresses.join(",")
    }
}

fn ports_text(ports: &[ServicePort]) -> String {
    if ports.is_empty() {
        return "<none>".to_owned();
    }
    let one = |port: &ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match port.node_port.unwrap_or(0) {
            0 => format!("{}/{protocol}", port.port),
            node_port => format!("{}:{node_port}/{protocol}", port.port),
        }
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}
