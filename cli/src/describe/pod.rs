//! Pods.

use serde_json::Value;

use super::containers;
use super::text::{Text, controller, items, pairs, text, time};

/// Writes a pod.
pub(super) fn describe(out: &mut Text, pod: &Value) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    out.name(pod);
    out.field(0, "Priority", spec["priority"].as_i64().unwrap_or(0).to_string());
    if spec["priorityClassName"].is_string() {
        out.field(0, "Priority Class Name", text(&spec["priorityClassName"]));
    }
    out.field(
        0,
        "Service Account",
        spec["serviceAccountName"].as_str().unwrap_or("default"),
    );
    let node = match (spec["nodeName"].as_str(), status["hostIP"].as_str()) {
        (Some(node), address) => format!("{node}/{}", address.unwrap_or_default()),
        (None, _) => String::new(),
    };
    out.field(0, "Node", node);
    if status["startTime"].is_string() {
        out.field(0, "Start Time", time(&status["startTime"]));
    }
    out.metadata(pod);
    summary(out, pod);
    containers::of_pod(out, "Init Containers", pod, "initContainers");
    containers::of_pod(out, "Containers", pod, "containers");
    if !items(&status["conditions"]).is_empty() {
        out.line(0, "Conditions:");
        out.line(1, "Type\tStatus");
        for condition in items(&status["conditions"]) {
            out.line(
                1,
                format!("{} \t{} ", text(&condition["type"]), text(&condition["status"])),
            );
        }
    }
    volumes(out, 0, spec);
    out.field(
        0,
        "QoS Class",
        status["qosClass"].as_str().unwrap_or("BestEffort"),
    );
    placement(out, 0, spec);
}

fn summary(out: &mut Text, pod: &Value) {
    let status = &pod["status"];
    match pod["metadata"]["deletionTimestamp"].as_str() {
        Some(_) => {
            let since =
                crate::output::age::since(&pod["metadata"]["deletionTimestamp"], jiff::Timestamp::now());
            out.field(0, "Status", format!("Terminating (lasts {since})"));
            let grace = text(&pod["metadata"]["deletionGracePeriodSeconds"]);
            out.field(0, "Termination Grace Period", format!("{grace}s"));
        }
        None => out.field(0, "Status", text(&status["phase"])),
    }
    for (title, field) in [("Reason", "reason"), ("Message", "message")] {
        if status[field].as_str().is_some_and(|text| !text.is_empty()) {
            out.field(0, title, text(&status[field]));
        }
    }
    out.line(0, format!("IP:\t{}", text(&status["podIP"])));
    if items(&status["podIPs"]).is_empty() {
        out.field(0, "IPs", "");
    } else {
        out.line(0, "IPs:");
        for address in items(&status["podIPs"]) {
            out.line(1, format!("IP:\t{}", text(&address["ip"])));
        }
    }
    if let Some(controller) = controller(pod) {
        out.field(0, "Controlled By", controller);
    }
}

/// Writes the volumes, each with its source.
pub(super) fn volumes(out: &mut Text, level: usize, spec: &Value) {
    if items(&spec["volumes"]).is_empty() {
        return out.field(level, "Volumes", "");
    }
    out.line(level, "Volumes:");
    for volume in items(&spec["volumes"]) {
        out.line(level + 1, format!("{}:", text(&volume["name"])));
        let source = volume
            .as_object()
            .into_iter()
            .flatten()
            .find(|(key, _)| *key != "name");
        if let Some((kind, source)) = source {
            let mut title = kind.clone();
            title[..1].make_ascii_uppercase();
            out.field(level + 2, "Type", title);
            for (key, value) in pairs(source).filter(|(_, value)| !value.starts_with(['{', '['])) {
                let mut title = key.clone();
                title[..1].make_ascii_uppercase();
                out.field(level + 2, &title, value);
            }
        }
    }
}

/// Writes node selectors and tolerations.
pub(super) fn placement(out: &mut Text, level: usize, spec: &Value) {
    out.labels(level, "Node-Selectors", &spec["nodeSelector"]);
    let tolerations: Vec<String> = items(&spec["tolerations"]).iter().map(toleration).collect();
    out.list(level, "Tolerations", &tolerations);
}

fn toleration(toleration: &Value) -> String {
    let mut shown = text(&toleration["key"]);
    let value = text(&toleration["value"]);
    if !value.is_empty() {
        shown.push_str(&format!("={value}"));
    }
    let effect = text(&toleration["effect"]);
    if !effect.is_empty() {
        shown.push_str(&format!(":{effect}"));
    }
    if toleration["operator"] == "Exists" && value.is_empty() {
        let op = if shown.is_empty() {
            "op=Exists"
        } else {
            " op=Exists"
        };
        shown.push_str(op);
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        shown.push_str(&format!(" for {seconds}s"));
    }
    shown
}
