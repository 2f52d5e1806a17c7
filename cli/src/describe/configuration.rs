//! Namespaces, ConfigMaps, Secrets and ServiceAccounts.

use serde_json::Value;

use super::text::{Text, items, pairs, text};

/// Writes a namespace.
pub(super) fn namespace(out: &mut Text, namespace: &Value) {
    out.name(namespace);
    out.metadata(namespace);
    out.field(0, "Status", text(&namespace["status"]["phase"]));
    for condition in items(&namespace["status"]["conditions"])
        .iter()
        .filter(|condition| condition["status"] == "True")
    {
        out.field(0, &text(&condition["type"]), text(&condition["message"]));
    }
}

/// Writes a ConfigMap with its data.
pub(super) fn config_map(out: &mut Text, map: &Value) {
    out.name(map);
    out.metadata(map);
    out.line(0, "\nData\n====");
    for (key, value) in pairs(&map["data"]) {
        // A tab in the data is not one of the layout.
        out.line(0, format!("{key}:\n----\n{}\n", value.replace('\t', "    ")));
    }
    out.line(0, "\nBinaryData\n====");
    for (key, value) in pairs(&map["binaryData"]) {
        out.line(0, format!("{key}: {} bytes", decoded_length(&value)));
    }
    out.line(0, "");
}

/// Writes a Secret: how large its values are, never what they are.
pub(super) fn secret(out: &mut Text, secret: &Value) {
    out.name(secret);
    out.metadata(secret);
    out.line(0, format!("\nType:\t{}", text(&secret["type"])));
    out.line(0, "\nData\n====");
    for (key, value) in pairs(&secret["data"]) {
        out.line(0, format!("{key}:\t{} bytes", decoded_length(&value)));
    }
}

/// Writes a ServiceAccount.
pub(super) fn service_account(out: &mut Text, account: &Value) {
    out.name(account);
    out.metadata(account);
    let names = |field: &str| {
        items(&account[field])
            .iter()
            .map(|reference| text(&reference["name"]))
            .collect::<Vec<_>>()
    };
    out.list(0, "Image pull secrets", &names("imagePullSecrets"));
    out.list(0, "Mountable secrets", &names("secrets"));
    out.field(0, "Tokens", "");
}

/// How many bytes a base64 text stands for.
fn decoded_length(base64: &str) -> usize {
    let text = base64.trim_end_matches('=');
    text.len() * 3 / 4
}
