//! Nodes.

use serde_json::Value;

use super::text::{Text, items, pairs, text, time};

const ROLE: &str = "node-role.kubernetes.io/";

/// Writes a node with the pods that run on it.
pub(super) fn describe(out: &mut Text, node: &Value, pods: &[Value]) {
    let (spec, status) = (&node["spec"], &node["status"]);
    out.name(node);
    let labels = &node["metadata"]["labels"];
    let roles: Vec<String> = pairs(labels)
        .filter_map(|(key, _)| key.strip_prefix(ROLE).map(str::to_owned))
        .collect();
    out.field(0, "Roles", roles.join(","));
    out.metadata(node);
    out.field(
        0,
        "CreationTimestamp",
        time(&node["metadata"]["creationTimestamp"]),
    );
    let taint = |taint: &Value| {
        let value = text(&taint["value"]);
        let value = if value.is_empty() {
            String::new()
        } else {
            format!("={value}")
        };
        format!("{}{value}:{}", text(&taint["key"]), text(&taint["effect"]))
    };
    out.list(
        0,
        "Taints",
        &items(&spec["taints"]).iter().map(taint).collect::<Vec<_>>(),
    );
    out.field(0, "Unschedulable", (spec["unschedulable"] == true).to_string());
    conditions(out, status);
    if !items(&status["addresses"]).is_empty() {
        out.line(0, "Addresses:");
        for address in items(&status["addresses"]) {
            out.line(
                1,
                format!("{}:\t{}", text(&address["type"]), text(&address["address"])),
            );
        }
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        if pairs(&status[field]).next().is_some() {
            out.line(0, format!("{title}:"));
            for (resource, quantity) in pairs(&status[field]) {
                out.line(1, format!("{resource}:\t{quantity}"));
            }
        }
    }
    system(out, &status["nodeInfo"]);
    if spec["podCIDR"].is_string() {
        out.field(0, "PodCIDR", text(&spec["podCIDR"]));
        let all: Vec<String> = items(&spec["podCIDRs"]).iter().map(text).collect();
        out.field(0, "PodCIDRs", all.join(","));
    }
    super::allocated::describe(out, node, pods);
}

fn conditions(out: &mut Text, status: &Value) {
    if items(&status["conditions"]).is_empty() {
        return;
    }
    out.line(0, "Conditions:");
    out.line(
        1,
        "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage",
    );
    out.line(
        1,
        "----\t------\t-----------------\t------------------\t------\t-------",
    );
    for condition in items(&status["conditions"]) {
        out.line(
            1,
            format!(
                "{} \t{} \t{} \t{} \t{} \t{}",
                text(&condition["type"]),
                text(&condition["status"]),
                time(&condition["lastHeartbeatTime"]),
                time(&condition["lastTransitionTime"]),
                text(&condition["reason"]),
                text(&condition["message"])
            ),
        );
    }
}

fn system(out: &mut Text, info: &Value) {
    out.line(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ] {
        out.line(1, format!("{title}:\t{}", text(&info[field])));
    }
}
