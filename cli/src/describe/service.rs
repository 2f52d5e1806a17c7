//! Services with their endpoints.

use serde_json::Value;

use super::text::{Text, items, selector, text};
use crate::client::{Cluster, RequestError, escape, with_query};

/// Writes a Service.
pub(super) fn describe(out: &mut Text, service: &Value, slices: &[Value]) {
    let spec = &service["spec"];
    out.name(service);
    out.metadata(service);
    out.field(0, "Selector", selector(service));
    out.field(0, "Type", text(&spec["type"]));
    if spec["ipFamilyPolicy"].is_string() {
        out.field(0, "IP Family Policy", text(&spec["ipFamilyPolicy"]));
    }
    let joined = |value: &Value| items(value).iter().map(text).collect::<Vec<_>>().join(",");
    if !items(&spec["ipFamilies"]).is_empty() {
        out.field(0, "IP Families", joined(&spec["ipFamilies"]));
    }
    out.line(0, format!("IP:\t{}", text(&spec["clusterIP"])));
    out.field(0, "IPs", joined(&spec["clusterIPs"]));
    if spec["externalName"].is_string() {
        out.field(0, "External Name", text(&spec["externalName"]));
    }
    for port in items(&spec["ports"]) {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let name = port["name"].as_str().unwrap_or("<unset>");
        out.line(0, format!("Port:\t{name}\t{}/{protocol}", text(&port["port"])));
        out.line(
            0,
            format!("TargetPort:\t{}/{protocol}", text(&port["targetPort"])),
        );
        if port["nodePort"].as_i64().is_some_and(|port| port > 0) {
            out.line(
                0,
                format!("NodePort:\t{name}\t{}/{protocol}", text(&port["nodePort"])),
            );
        }
        out.field(0, "Endpoints", endpoints(slices, &port["name"]));
    }
    out.field(
        0,
        "Session Affinity",
        spec["sessionAffinity"].as_str().unwrap_or("None"),
    );
    if spec["internalTrafficPolicy"].is_string() {
        out.field(0, "Internal Traffic Policy", text(&spec["internalTrafficPolicy"]));
    }
}

/// Up to three addresses, and how many more there are.
fn endpoints(slices: &[Value], port_name: &Value) -> String {
    const SHOWN_MAX: usize = 3;
    let mut all = Vec::new();
    for slice in slices {
        let matches = |port: &&Value| text(&port["name"]) == text(port_name);
        for port in items(&slice["ports"]).iter().filter(matches) {
            for endpoint in items(&slice["endpoints"])
                .iter()
                .filter(|endpoint| endpoint["conditions"]["ready"] != false)
            {
                all.extend(
                    items(&endpoint["addresses"])
                        .iter()
                        .map(|address| format!("{}:{}", text(address), text(&port["port"]))),
                );
            }
        }
    }
    match all.len().checked_sub(SHOWN_MAX) {
        None | Some(0) => all.join(","),
        Some(more) => format!("{} + {more} more...", all[..SHOWN_MAX].join(",")),
    }
}

/// Asks for the EndpointSlices of a Service.
pub(super) async fn endpoint_slices(cluster: &Cluster, service: &Value) -> Result<Vec<Value>, RequestError> {
    let namespace = service["metadata"]["namespace"].as_str().unwrap_or_default();
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
        escape(namespace)
    );
    let labels = format!(
        "kubernetes.io/service-name={}",
        text(&service["metadata"]["name"])
    );
    let mut list = cluster
        .get(&with_query(&path, &[("labelSelector", Some(&labels))]))
        .await?;
    Ok(match list["items"].take() {
        Value::Array(slices) => slices,
        _ => Vec::new(),
    })
}
