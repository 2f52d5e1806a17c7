//! Sends nodes the certificates that their proxies show, and no other secret.
//!
//! Which these are depends on ingresses and their classes as well: whatever changes, the set is worked out anew and what
//! differs from what the node has is sent. A node that comes back gets all of it, for nobody knows what it still has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use flotilla_api::ingresses;
use flotilla_proto::node::{FollowGone, FollowList, FollowObject, follow_event::Kind};
use flotilla_raft::{Watch, WatchError};
use flotilla_store::{Key, ResourceName, Revision, Snapshot, Stored};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tonic::Status;

use super::{BOOKMARK, Follower};

const GROUP: &str = "networking.k8s.io";

/// Namespace and name.
type Place = (Arc<str>, Arc<str>);

impl Follower<'_> {
    pub(super) async fn follow_certificates(&self) -> Result<std::convert::Infallible, Status> {
        loop {
            let snapshot = self.replica.snapshot();
            let mut sent = BTreeMap::new();
            self.send(Kind::List(FollowList {})).await?;
            self.send_difference(&snapshot, &mut sent).await?;
            self.bookmark(snapshot.revision()).await?;
            match self.send_certificates(snapshot.revision(), &mut sent).await? {
                WatchError::Expired { .. } => {}
                WatchError::Closed => return Err(Status::unavailable("the server is shutting down")),
            }
        }
    }

    /// Sends what changes until a watch ends; says why it did.
    async fn send_certificates(
        &self,
        after: Revision,
        sent: &mut BTreeMap<Place, Revision>,
    ) -> Result<WatchError, Status> {
        let watch = |group: &str, resource: &str| {
            self.replica
                .watch(ResourceName::new(group, resource), None, after)
        };
        let watches = (
            watch("", "secrets"),
            watch(GROUP, "ingresses"),
            watch(GROUP, "ingressclasses"),
        );
        let (mut secrets, mut named, mut classes) = match watches {
            (Ok(secrets), Ok(named), Ok(classes)) => (secrets, named, classes),
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => return Ok(error),
        };
        let mut bookmark = tokio::time::interval(BOOKMARK);
        bookmark.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Watches are cancel safe, and only wake this up: what is sent comes from a snapshot.
            let woken = tokio::select! {
                changed = changed(&mut secrets) => changed,
                changed = changed(&mut named) => changed,
                changed = changed(&mut classes) => changed,
                _ = bookmark.tick() => {
                    let seen = secrets.progress().min(named.progress()).min(classes.progress());
                    self.bookmark(seen).await?;
                    continue;
                }
            };
            match woken {
                Ok(()) => self.send_difference(&self.replica.snapshot(), sent).await?,
                Err(error) => return Ok(error),
            }
        }
    }

    /// Makes what the node has equal to what it should have at this moment.
    async fn send_difference(
        &self,
        snapshot: &Snapshot,
        sent: &mut BTreeMap<Place, Revision>,
    ) -> Result<(), Status> {
        let wanted = certificates(snapshot);
        let gone: Vec<Place> = sent
            .keys()
            .filter(|place| !wanted.contains_key(*place))
            .cloned()
            .collect();
        for place in gone {
            sent.remove(&place);
            let gone = FollowGone {
                namespace: place.0.to_string(),
                name: place.1.to_string(),
                revision: snapshot.revision().0,
            };
            self.send(Kind::Gone(gone)).await?;
        }
        for (place, stored) in wanted {
            if sent.get(&place) == Some(&stored.modified) {
                continue;
            }
            let object_json = cut(&stored.json);
            self.send(Kind::Object(FollowObject { object_json })).await?;
            sent.insert(place, stored.modified);
        }
        Ok(())
    }
}

async fn changed(watch: &mut Watch) -> Result<(), WatchError> {
    watch.next().await.map(|_| ())
}

/// Secrets with certificates that ingresses of our classes name.
fn certificates(snapshot: &Snapshot) -> BTreeMap<Place, Arc<Stored>> {
    let classes: BTreeSet<Arc<str>> = snapshot
        .list(&ResourceName::new(GROUP, "ingressclasses"), None, None)
        .filter(|stored| decoded::<IngressClass>(stored).is_some_and(|class| ingresses::is_ours(&class)))
        .map(|stored| stored.key.name.clone())
        .collect();
    let mut found = BTreeMap::new();
    for stored in snapshot.list(&ResourceName::new(GROUP, "ingresses"), None, None) {
        let Some(ingress) = decoded::<Ingress>(stored) else {
            continue;
        };
        if !ingresses::class_name(&ingress).is_some_and(|class| classes.contains(class)) {
            continue;
        }
        for name in ingresses::tls_secrets(&ingress) {
            let namespace = stored.key.namespace.clone();
            let key = Key::new(ResourceName::new("", "secrets"), namespace.clone(), name);
            if let Some(secret) = snapshot.get(&key).filter(|secret| is_tls(secret)) {
                found.insert((namespace, Arc::from(name)), secret.clone());
            }
        }
    }
    found
}

/// Decoded once for all nodes.
fn decoded<T>(stored: &Stored) -> Option<Arc<T>>
where
    T: serde::de::DeserializeOwned + Send + Sync + 'static,
{
    stored
        .cached(|stored| serde_json::from_slice(&stored.json).ok().map(Arc::new))
        .as_ref()
        .clone()
}

fn is_tls(secret: &Stored) -> bool {
    #[derive(serde::Deserialize)]
    struct Partial {
        #[serde(rename = "type")]
        type_: String,
    }
    serde_json::from_slice::<Partial>(&secret.json)
        .is_ok_and(|found| found.type_ == ingresses::TLS_SECRET_TYPE)
}

/// Certificate and key of a secret, without anything else that may be in it or in its annotations.
fn cut(json: &Bytes) -> Bytes {
    let secret: Value = serde_json::from_slice(json).unwrap_or_default();
    let meta = &secret["metadata"];
    let cut = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
        },
        "type": secret["type"],
        "data": {"tls.crt": secret["data"]["tls.crt"], "tls.key": secret["data"]["tls.key"]},
    });
    Bytes::from(cut.to_string())
}

#[cfg(test)]
mod tests {
    use flotilla_store::{Draft, HistoryLimits, Operation, Require, State, Transaction};

    use super::*;

    fn put(state: &mut State, group: &str, resource: &str, namespace: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        object["metadata"]["namespace"] = namespace.into();
        let json = object.to_string();
        let needle = "\"metadata\":{";
        let revision_at = json.find(needle).unwrap() + needle.len();
        let draft = Draft {
            json: json.into(),
            revision_at,
        };
        let key = Key::new(ResourceName::new(group, resource), namespace, name.as_str());
        let require = Require::Anything;
        state.apply(&Transaction {
            operations: vec![Operation::Put { key, draft, require }],
            fence: None,
        });
    }

    fn class(state: &mut State, name: &str, controller: &str) {
        let class = json!({"metadata": {"name": name}, "spec": {"controller": controller}});
        put(state, GROUP, "ingressclasses", "", class);
    }

    fn ingress(state: &mut State, namespace: &str, class: &str, secret: &str) {
        let spec = json!({"ingressClassName": class, "tls": [{"secretName": secret}]});
        let ingress = json!({"metadata": {"name": format!("{class}-{secret}")}, "spec": spec});
        put(state, GROUP, "ingresses", namespace, ingress);
    }

    fn secret(state: &mut State, namespace: &str, name: &str, type_: &str) {
        let meta = json!({"name": name, "annotations": {"note": "private"}});
        let data = json!({"tls.crt": "Y3J0", "tls.key": "a2V5", "password": "c2VjcmV0"});
        let secret = json!({"metadata": meta, "type": type_, "data": data});
        put(state, "", "secrets", namespace, secret);
    }

    fn names(state: &State) -> Vec<String> {
        let found = certificates(state.snapshot());
        found
            .keys()
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect()
    }

    #[test]
    fn nodes_get_the_certificates_that_ingresses_of_our_classes_name_and_no_other_secret() {
        let mut state = State::new(Snapshot::default(), 1, HistoryLimits::default());
        class(&mut state, "ours", ingresses::CONTROLLER);
        class(&mut state, "theirs", "example.com/other");
        for namespace in ["shop", "other"] {
            for name in ["named", "of-others", "unnamed"] {
                secret(&mut state, namespace, name, ingresses::TLS_SECRET_TYPE);
            }
            secret(&mut state, namespace, "opaque", "Opaque");
        }
        assert_eq!(names(&state), [""; 0]);
        for (class, secret) in [
            ("ours", "named"),
            ("ours", "opaque"),
            ("ours", "missing"),
            ("theirs", "of-others"),
            ("nobodys", "unnamed"),
        ] {
            ingress(&mut state, "shop", class, secret);
        }
        assert_eq!(names(&state), ["shop/named"]);
        class(&mut state, "theirs", ingresses::CONTROLLER);
        assert_eq!(names(&state), ["shop/named", "shop/of-others"]);
    }

    #[test]
    fn of_a_secret_only_certificate_and_key_are_sent() {
        let mut state = State::new(Snapshot::default(), 1, HistoryLimits::default());
        secret(&mut state, "shop", "named", ingresses::TLS_SECRET_TYPE);
        let key = Key::new(ResourceName::new("", "secrets"), "shop", "named");
        let sent = String::from_utf8(cut(&state.snapshot().get(&key).unwrap().json).to_vec()).unwrap();
        assert!(sent.contains("Y3J0") && sent.contains("a2V5"), "{sent}");
        for kept_back in ["password", "c2VjcmV0", "private"] {
            assert!(!sent.contains(kept_back), "{sent}");
        }
        let decoded: Value = serde_json::from_str(&sent).unwrap();
        assert_eq!(decoded["metadata"]["resourceVersion"], "1");
    }
}
