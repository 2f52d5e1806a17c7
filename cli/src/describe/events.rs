//! The events about an object.

use jiff::Timestamp;
use serde_json::Value;

use super::text::{Text, text};
use crate::client::{Cluster, RequestError, with_query};
use crate::output::age::since;

/// Asks for the events about an object.
pub(super) async fn about(cluster: &Cluster, object: &Value) -> Result<Vec<Value>, RequestError> {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let mut fields = format!(
        "involvedObject.name={},involvedObject.kind={}",
        text(&metadata["name"]),
        text(&object["kind"])
    );
    // Events about nodes carry the name in place of the uid.
    // Those about a static pod carry its own uid, which its mirror names.
    let mirrored = metadata["annotations"]["kubernetes.io/config.mirror"].as_str();
    let uid = mirrored.or(metadata["uid"].as_str());
    if let (Some(uid), false) = (uid, object["kind"] == "Node") {
        fields.push_str(&format!(",involvedObject.uid={uid}"));
    }
    let path = format!("/api/v1/namespaces/{}/events", crate::client::escape(namespace));
    let mut list = cluster
        .get(&with_query(&path, &[("fieldSelector", Some(&fields))]))
        .await?;
    let mut events = match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    events.sort_by_key(|event| text(last(event)));
    Ok(events)
}

/// Writes them as a table.
pub(super) fn describe(out: &mut Text, events: &[Value], now: Timestamp) {
    if events.is_empty() {
        return out.field(0, "Events", "");
    }
    out.line(0, "Events:");
    out.line(1, "Type\tReason\tAge\tFrom\tMessage");
    out.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let count = event["count"]
            .as_i64()
            .or(event["series"]["count"].as_i64())
            .unwrap_or(1);
        let age = if count > 1 {
            format!(
                "{} (x{count} over {})",
                since(last(event), now),
                since(first(event), now)
            )
        } else {
            since(first(event), now)
        };
        let component = [&event["source"]["component"], &event["reportingComponent"]]
            .into_iter()
            .map(text)
            .find(|name| !name.is_empty());
        out.line(
            1,
            format!(
                "{}\t{}\t{age}\t{}\t{}",
                text(&event["type"]),
                text(&event["reason"]),
                component.unwrap_or_default(),
                text(&event["message"]).trim()
            ),
        );
    }
}

fn first(event: &Value) -> &Value {
    if event["firstTimestamp"].is_null() {
        &event["eventTime"]
    } else {
        &event["firstTimestamp"]
    }
}

fn last(event: &Value) -> &Value {
    match (&event["lastTimestamp"], &event["series"]["lastObservedTime"]) {
        (Value::Null, Value::Null) => first(event),
        (Value::Null, observed) => observed,
        (last, _) => last,
    }
}
