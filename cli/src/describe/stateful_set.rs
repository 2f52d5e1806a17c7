//! StatefulSets.

use serde_json::Value;

use super::text::{Text, items, selector, text, time};
use super::workload;

/// Writes a StatefulSet with how its pods do.
pub(super) fn describe(out: &mut Text, set: &Value, pods: &[Value]) {
    let (spec, status) = (&set["spec"], &set["status"]);
    out.name(set);
    out.field(
        0,
        "CreationTimestamp",
        time(&set["metadata"]["creationTimestamp"]),
    );
    out.field(0, "Selector", selector(set));
    out.metadata(set);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let total = status["replicas"].as_i64().unwrap_or(0);
    out.field(0, "Replicas", format!("{wanted} desired | {total} total"));
    out.field(0, "Update Strategy", text(&spec["updateStrategy"]["type"]));
    let rolling = &spec["updateStrategy"]["rollingUpdate"];
    if rolling["partition"].is_number() {
        out.line(1, format!("Partition:\t{}", text(&rolling["partition"])));
    }
    out.field(0, "Pods Status", workload::pods_status(pods));
    workload::template(out, &spec["template"]);
    claims(out, items(&spec["volumeClaimTemplates"]));
}

fn claims(out: &mut Text, claims: &[Value]) {
    if claims.is_empty() {
        return out.field(0, "Volume Claims", "");
    }
    out.line(0, "Volume Claims:");
    for claim in claims {
        let (meta, spec) = (&claim["metadata"], &claim["spec"]);
        out.line(1, format!("Name:\t{}", text(&meta["name"])));
        out.line(1, format!("StorageClass:\t{}", text(&spec["storageClassName"])));
        out.labels(1, "Labels", &meta["labels"]);
        out.annotations(1, &meta["annotations"]);
        let capacity = &spec["resources"]["requests"]["storage"];
        out.line(
            1,
            format!(
                "Capacity:\t{}",
                if capacity.is_null() {
                    "<default>".to_owned()
                } else {
                    text(capacity)
                }
            ),
        );
        let modes: Vec<String> = items(&spec["accessModes"]).iter().map(text).collect();
        out.line(1, format!("Access Modes:\t[{}]", modes.join(" ")));
    }
}
