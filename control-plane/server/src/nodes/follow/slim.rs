//! What nodes get to know of pods and of each other: enough for policies, names and services, no more.
//!
//! Pure. Environment, volumes and annotations of other nodes' pods are nobody else's business.

use bytes::Bytes;
use flotilla_store::Stored;
use serde_json::{Map, Value};

/// How an object is cut down before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nodes) enum Slim {
    /// Not at all.
    Whole,
    /// To labels, node, names of containers and their ports, addresses and readiness.
    Pod,
    /// To everything but the list of its images.
    Node,
    /// Of secrets only those that ingresses of our classes name, and of them certificate and key.
    Certificates,
}

const METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "labels",
    "deletionTimestamp",
];
const POD_SPEC: &[&str] = &[
    "nodeName",
    "hostNetwork",
    "hostname",
    "subdomain",
    "serviceAccountName",
];
const POD_STATUS: &[&str] = &["phase", "podIP", "podIPs", "hostIP"];

impl Slim {
    /// The object as it is sent. One that cannot be read is sent as it is.
    pub(super) fn cut(self, json: &Bytes) -> Bytes {
        match self {
            Slim::Whole | Slim::Certificates => json.clone(),
            Slim::Pod | Slim::Node => match serde_json::from_slice::<Value>(json) {
                Ok(value) => Bytes::from(self.cut_value(value).to_string()),
                Err(_) => json.clone(),
            },
        }
    }

    /// Whether a change is none to those who see the object cut down.
    pub(super) fn is_same(self, before: Option<&Stored>, after: &Stored) -> bool {
        if matches!(self, Slim::Whole | Slim::Certificates) {
            return false;
        }
        let seen = |stored: &Stored| -> Option<Value> {
            let mut value = self.cut_value(serde_json::from_slice(&stored.json).ok()?);
            value
                .get_mut("metadata")?
                .as_object_mut()?
                .remove("resourceVersion");
            Some(value)
        };
        before
            .and_then(seen)
            .is_some_and(|before| Some(before) == seen(after))
    }

    fn cut_value(self, mut value: Value) -> Value {
        match self {
            Slim::Whole | Slim::Certificates => value,
            Slim::Node => {
                if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
                    status.remove("images");
                }
                value
            }
            Slim::Pod => pod(&value),
        }
    }
}

fn pod(pod: &Value) -> Value {
    let mut spec = pick(&pod["spec"], POD_SPEC);
    // Clients decode a whole pod, of which the containers are a required part.
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let containers = containers.map(|container| pick(container, &["name", "ports"]).into());
    spec.insert("containers".into(), Value::Array(containers.collect()));
    // Sidecars serve ports as well.
    let initial = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    let sidecars = initial.filter(|container| container["restartPolicy"] == "Always");
    let sidecars: Vec<Value> = sidecars
        .map(|container| pick(container, &["name", "ports", "restartPolicy"]).into())
        .collect();
    if !sidecars.is_empty() {
        spec.insert("initContainers".into(), Value::Array(sidecars));
    }
    let mut status = pick(&pod["status"], POD_STATUS);
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.filter(|condition| condition["type"] == "Ready");
    let ready = ready.map(|condition| pick(condition, &["type", "status"]).into());
    status.insert("conditions".into(), Value::Array(ready.collect()));
    let mut slim = pick(pod, &["apiVersion", "kind"]);
    slim.insert("metadata".into(), pick(&pod["metadata"], METADATA).into());
    slim.insert("spec".into(), spec.into());
    slim.insert("status".into(), status.into());
    slim.into()
}

fn pick(from: &Value, fields: &[&str]) -> Map<String, Value> {
    let found = fields
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), from.get(*field)?.clone())));
    found.collect()
}

#[cfg(test)]
mod tests {
    use flotilla_store::{Draft, Key, ResourceName, Revision};
    use serde_json::json;

    use super::*;

    fn stored(revision: u64, environment: &str, phase: &str) -> Stored {
        let json = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"a": "b"}},
            "spec": {
                "nodeName": "n1",
                "containers": [{
                    "name": "web", "image": "nginx", "env": [{"name": "PASSWORD", "value": environment}],
                    "ports": [{"name": "http", "containerPort": 80}],
                }],
                "initContainers": [
                    {"name": "first", "image": "busybox", "ports": [{"containerPort": 1}]},
                    {"name": "mesh", "image": "mesh", "restartPolicy": "Always", "ports": [{"name": "m", "containerPort": 2}]},
                ],
            },
            "status": {
                "phase": phase, "podIP": "10.42.0.5",
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}],
            },
        })
        .to_string();
        let needle = "\"metadata\":{";
        let revision_at = json.find(needle).unwrap() + needle.len();
        let draft = Draft {
            json: json.into(),
            revision_at,
        };
        let key = Key::new(ResourceName::new("", "pods"), "shop", "web");
        Stored::from_draft(key, &draft, Revision(1), Revision(revision))
    }

    #[test]
    fn a_pod_is_cut_down_to_what_other_nodes_need() {
        let slim: Value =
            serde_json::from_slice(&Slim::Pod.cut(&stored(7, "secret", "Running").json)).unwrap();
        assert_eq!(
            slim,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "web", "namespace": "shop", "labels": {"app": "web"}, "resourceVersion": "7",
                },
                "spec": {
                    "nodeName": "n1",
                    "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 80}]}],
                    "initContainers": [
                        {"name": "mesh", "restartPolicy": "Always", "ports": [{"name": "m", "containerPort": 2}]},
                    ],
                },
                "status": {
                    "phase": "Running", "podIP": "10.42.0.5", "conditions": [{"type": "Ready", "status": "True"}],
                },
            })
        );
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(slim).unwrap();
        assert_eq!(pod.spec.unwrap().containers[0].name, "web");
    }

    #[test]
    fn a_change_that_nobody_else_sees_is_none() {
        let old = stored(7, "secret", "Running");
        assert!(Slim::Pod.is_same(Some(&old), &stored(8, "other", "Running")));
        assert!(!Slim::Pod.is_same(Some(&old), &stored(8, "secret", "Failed")));
        assert!(!Slim::Pod.is_same(None, &old));
        assert!(!Slim::Whole.is_same(Some(&old), &old));
    }
}
