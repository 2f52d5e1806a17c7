//! Kinds without a description of their own: all their fields as an outline.

use serde_json::Value;

use super::text::{Text, text};

/// Writes any object.
pub(super) fn describe(out: &mut Text, object: &Value) {
    out.name(object);
    out.metadata(object);
    out.field(0, "API Version", text(&object["apiVersion"]));
    out.field(0, "Kind", text(&object["kind"]));
    let mut rest = object.clone();
    if let Some(map) = rest.as_object_mut() {
        map.retain(|key, _| !["apiVersion", "kind"].contains(&key.as_str()));
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| {
                !["name", "namespace", "labels", "annotations", "managedFields"].contains(&key.as_str())
            });
        }
    }
    outline(out, 0, &rest);
}

fn outline(out: &mut Text, level: usize, value: &Value) {
    let Some(map) = value.as_object() else { return };
    for (key, value) in map {
        let title = title(key);
        match value {
            Value::Object(inner) if inner.is_empty() => out.line(level, format!("{title}:")),
            Value::Object(_) => {
                out.line(level, format!("{title}:"));
                outline(out, level + 1, value);
            }
            Value::Array(items) => {
                out.line(level, format!("{title}:"));
                for item in items {
                    if item.is_object() {
                        outline(out, level + 1, item)
                    } else {
                        out.line(level + 1, text(item))
                    }
                }
            }
            scalar => out.line(level, format!("{title}:\t{}", text(scalar))),
        }
    }
}

/// `creationTimestamp` becomes `Creation Timestamp`.
fn title(key: &str) -> String {
    if ["api", "url", "uid", "guid"].contains(&key) {
        return key.to_uppercase();
    }
    if key.contains(['/', '.', '-']) {
        return key.to_owned();
    }
    let mut title = String::new();
    let mut after_capital = true;
    for (position, c) in key.chars().enumerate() {
        if position == 0 {
            title.extend(c.to_uppercase());
            continue;
        }
        if c.is_uppercase() && !after_capital {
            title.push(' ');
        }
        after_capital = c.is_uppercase();
        title.push(c);
    }
    title
}
