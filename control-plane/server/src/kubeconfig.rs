//! The administrator's kubeconfig.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flotilla_pki::Identity;
use serde_json::json;

/// A kubeconfig (as JSON, which is YAML) for `server` (`https://host:port`) with the identity inside.
pub(crate) fn kubeconfig(server: &str, identity: &Identity) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "flotilla",
        "clusters": [{
            "name": "flotilla",
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(&identity.ca_pem) },
        }],
        "users": [{
            "name": "admin",
            "user": {
                "client-certificate-data": STANDARD.encode(&identity.certificate_pem),
                "client-key-data": STANDARD.encode(&identity.key_pem),
            },
        }],
        "contexts": [{ "name": "flotilla", "context": { "cluster": "flotilla", "user": "admin" } }],
    });
    serde_json::to_string_pretty(&config).expect("a JSON value can be written")
}
