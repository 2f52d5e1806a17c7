//! Mirrors: pods that show what a node runs because of a file.
//!
//! A node makes mirrors of itself only, and none that refer to something which it would be given with them.

use flotilla_api::static_pods::{self, HASH, MIRROR, object_reference};
use flotilla_api::{Reason, Status};
use flotilla_resources::{DeleteOptions, EventRecord, EventType, Resources};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Sees to it that there is the mirror that a node asks for. What can never be is told by an event about the node;
/// an error is worth another try.
pub(super) async fn ensure(resources: &Resources, node: &str, json: &[u8]) -> Result<(), Status> {
    let wanted = match wanted(json, node) {
        Ok(wanted) => wanted,
        Err(why) => {
            refuse(resources, node, &why);
            return Ok(());
        }
    };
    let shown = shown_name(&wanted);
    match make(resources, node, wanted).await {
        Err(status) if is_final(&status) => {
            refuse(
                resources,
                node,
                &format!("static pod {shown}: {}", status.message),
            );
            Ok(())
        }
        other => other,
    }
}

fn is_final(status: &Status) -> bool {
    use Reason::{AlreadyExists, BadRequest, Forbidden, Invalid, NotFound};
    matches!(
        status.reason,
        AlreadyExists | BadRequest | Forbidden | Invalid | NotFound
    )
}

async fn make(resources: &Resources, node: &str, mut wanted: Pod) -> Result<(), Status> {
    let owner = resources.get_typed::<Node>("", node).await?;
    wanted.metadata.owner_references = Some(vec![owned_by(&owner)]);
    let namespace = wanted.metadata.namespace.clone().unwrap_or_default();
    let name = wanted.metadata.name.clone().unwrap_or_default();
    match resources.get_typed::<Pod>(&namespace, &name).await {
        Err(status) if status.reason == Reason::NotFound => {}
        Err(status) => return Err(status),
        Ok(found) if is_it(&found, &wanted) => return Ok(()),
        Ok(found) if is_mirror_of(&found, node) => remove(resources, &found).await?,
        // The creation will say that there is another pod of this name.
        Ok(_) => {}
    }
    resources.create_typed(wanted).await.map(drop)
}

async fn remove(resources: &Resources, mirror: &Pod) -> Result<(), Status> {
    let meta = &mirror.metadata;
    let options = DeleteOptions {
        grace_seconds: Some(0),
        uid: meta.uid.clone(),
        ..DeleteOptions::default()
    };
    let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
    let deleted = resources
        .delete_typed::<Pod>(namespace.unwrap_or_default(), name.unwrap_or_default(), &options)
        .await;
    match deleted {
        Err(status) if status.reason == Reason::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// The mirror that a node asks for, without anything that only others may say.
fn wanted(json: &[u8], node: &str) -> Result<Pod, String> {
    let asked: Pod =
        serde_json::from_slice(json).map_err(|error| format!("a mirror pod is malformed: {error}"))?;
    let shown = shown_name(&asked);
    let place = asked.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if place != Some(node) {
        return Err(format!(
            "mirror pod {shown} is to be on node {:?}; a node makes mirrors of itself only",
            place.unwrap_or_default()
        ));
    }
    let hash = static_pods::annotation(&asked, HASH).filter(|hash| !hash.is_empty());
    if hash.is_none() || static_pods::mirror_of(&asked) != hash {
        return Err(format!(
            "mirror pod {shown} needs the same hash in {HASH} and {MIRROR}"
        ));
    }
    if let Some(found) = object_reference(&asked) {
        let (resource, field) = (found.resource, found.field);
        return Err(format!(
            "mirror pod {shown} may not reference {resource} ({field})"
        ));
    }
    Ok(Pod {
        metadata: ObjectMeta {
            name: asked.metadata.name,
            namespace: asked.metadata.namespace,
            labels: asked.metadata.labels,
            annotations: asked.metadata.annotations,
            ..ObjectMeta::default()
        },
        spec: asked.spec,
        status: None,
    })
}

fn owned_by(node: &Node) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn is_it(found: &Pod, wanted: &Pod) -> bool {
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    found.metadata.deletion_timestamp.is_none()
        && static_pods::mirror_of(found) == static_pods::mirror_of(wanted)
        && node(found) == node(wanted)
}

fn is_mirror_of(found: &Pod, node: &str) -> bool {
    let place = found.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    static_pods::is_mirror(found) && place == Some(node)
}

fn shown_name(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

fn refuse(resources: &Resources, node: &str, why: &str) {
    tracing::warn!(node, why, "a mirror pod cannot be made");
    resources.record_event(EventRecord {
        regarding: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
        type_: EventType::Warning,
        reason: "FailedCreateMirrorPod".into(),
        message: format!("cannot show what the node runs: {why}"),
        component: "kubelet".into(),
        host: Some(node.to_owned()),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(node: &str, annotations: &serde_json::Value, volume: &serde_json::Value, expected: &str) {
        let mut volume = volume.clone();
        volume["name"] = json!("v");
        let pod = json!({
            "metadata": {
                "name": "web-a", "namespace": "default", "annotations": annotations, "labels": {"app": "web"},
                "finalizers": ["example.org/stay"], "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": "b", "uid": "u"}],
            },
            "spec": {"nodeName": node, "containers": [], "volumes": [volume]},
            "status": {"phase": "Running"},
        });
        let told = match wanted(pod.to_string().as_bytes(), "a") {
            Err(why) => why,
            Ok(pod) => {
                let meta = pod.metadata;
                assert!(pod.status.is_none() && meta.finalizers.is_none() && meta.owner_references.is_none());
                format!("{} {:?}", meta.name.unwrap(), meta.labels.unwrap())
            }
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn a_node_makes_mirrors_of_itself_only_and_none_that_bring_it_anything() {
        let hash = json!({HASH: "x", MIRROR: "x"});
        let none = json!({"emptyDir": {}});
        check("a", &hash, &none, r#"web-a {"app": "web"}"#);
        check(
            "b",
            &hash,
            &none,
            "mirror pod default/web-a is to be on node \"b\"; a node makes mirrors of itself only",
        );
        let unequal = "mirror pod default/web-a needs the same hash in kubernetes.io/config.hash and \
                       kubernetes.io/config.mirror";
        check("a", &json!({HASH: "x", MIRROR: "y"}), &none, unequal);
        check("a", &json!({}), &none, unequal);
        check(
            "a",
            &hash,
            &json!({"secret": {"secretName": "s"}}),
            "mirror pod default/web-a may not reference secrets (spec.volumes[0].secret)",
        );
    }
}
