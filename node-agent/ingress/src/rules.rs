//! Ingresses, classes and certificates as this node hears of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_api::ingresses;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::{Notify, watch};

use crate::declared::Declared;
use crate::table::{Place, by_age};

/// A certificate and its key, as PEM.
#[derive(PartialEq, Eq)]
pub(crate) struct KeyPair {
    pub(crate) certificate: Box<[u8]>,
    pub(crate) key: Box<[u8]>,
}

/// All that the proxy goes by. A clone shares it.
#[derive(Clone, Default)]
pub struct SharedRules {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    known: Mutex<Known>,
    changed: Notify,
    told: watch::Sender<Told>,
}

#[derive(Default)]
pub(crate) struct Known {
    ingresses: BTreeMap<Place, Declared>,
    /// Names of the classes of our controller.
    classes: BTreeSet<Box<str>>,
    pub(crate) secrets: BTreeMap<Place, Arc<KeyPair>>,
}

/// Which resources were told whole at least once.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    ingresses: bool,
    classes: bool,
    secrets: bool,
}

impl SharedRules {
    /// An ingress is new or has changed.
    pub fn ingress(&self, ingress: &Ingress) {
        let place = place(&ingress.metadata);
        let declared = Declared::of(ingress);
        self.change(|known| {
            let is_news = known.ingresses.get(&place) != Some(&declared);
            known.ingresses.insert(place, declared);
            is_news
        });
    }

    /// An ingress is gone.
    pub fn ingress_gone(&self, namespace: &str, name: &str) {
        let place = (namespace.into(), name.into());
        self.change(|known| known.ingresses.remove(&place).is_some());
    }

    /// A class is new or has changed.
    pub fn class(&self, class: &IngressClass) {
        let (_, name) = place(&class.metadata);
        self.change(|known| match ingresses::is_ours(class) {
            true => known.classes.insert(name),
            false => known.classes.remove(&name),
        });
    }

    /// A class is gone.
    pub fn class_gone(&self, name: &str) {
        self.change(|known| known.classes.remove(name));
    }

    /// A secret is new or has changed.
    pub fn secret(&self, secret: &Secret) {
        let place = place(&secret.metadata);
        let pair = key_pair(secret);
        self.change(|known| match pair {
            Some(pair) if known.secrets.get(&place).is_some_and(|old| **old == pair) => false,
            Some(pair) => {
                known.secrets.insert(place, Arc::new(pair));
                true
            }
            None => known.secrets.remove(&place).is_some(),
        });
    }

    /// A secret is gone, or no longer this node's business.
    pub fn secret_gone(&self, namespace: &str, name: &str) {
        let place = (namespace.into(), name.into());
        self.change(|known| known.secrets.remove(&place).is_some());
    }

    /// All ingresses have been told.
    pub fn ingresses_synced(&self) {
        self.inner.told.send_modify(|told| told.ingresses = true);
    }

    /// All classes have been told.
    pub fn classes_synced(&self) {
        self.inner.told.send_modify(|told| told.classes = true);
    }

    /// All secrets have been told.
    pub fn secrets_synced(&self) {
        self.inner.told.send_modify(|told| told.secrets = true);
    }

    /// Waits until everything was told once: half a table would turn requests away that have a place to go.
    pub(crate) async fn synced(&self) {
        let mut told = self.inner.told.subscribe();
        // The sender lives as long as these rules.
        let _ = told
            .wait_for(|told| told.ingresses && told.classes && told.secrets)
            .await;
    }

    /// Waits for a change since the last one that was waited for.
    pub(crate) async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known) -> bool) {
        let is_news = change(&mut self.known());
        if is_news {
            self.inner.changed.notify_one();
        }
    }
}

impl Known {
    /// Ingresses of our classes, the oldest first.
    pub(crate) fn served(&self) -> Vec<(&Place, &Declared)> {
        let ours = self.ingresses.iter().filter(|(_, declared)| {
            let class = declared.class.as_deref();
            class.is_some_and(|class| self.classes.contains(class))
        });
        by_age(ours)
    }
}

fn place(meta: &ObjectMeta) -> Place {
    (
        meta.namespace.as_deref().unwrap_or_default().into(),
        meta.name.as_deref().unwrap_or_default().into(),
    )
}

fn key_pair(secret: &Secret) -> Option<KeyPair> {
    let data = secret.data.as_ref()?;
    let file = |name: &str| data.get(name).map(|bytes| bytes.0.clone().into_boxed_slice());
    let is_tls = secret.type_.as_deref() == Some(ingresses::TLS_SECRET_TYPE);
    Some(KeyPair {
        certificate: file("tls.crt").filter(|_| is_tls)?,
        key: file("tls.key")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ingress(name: &str, class: Option<&str>) -> Ingress {
        let metadata = json!({"namespace": "a", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"ingressClassName": class}})).unwrap()
    }

    fn class(name: &str, controller: &str) -> IngressClass {
        let class = json!({"metadata": {"name": name}, "spec": {"controller": controller}});
        serde_json::from_value(class).unwrap()
    }

    fn served(rules: &SharedRules) -> Vec<String> {
        let known = rules.known();
        let served = known.served();
        served.iter().map(|((_, name), _)| name.to_string()).collect()
    }

    #[test]
    fn only_ingresses_of_our_controllers_classes_are_served() {
        let rules = SharedRules::default();
        rules.class(&class("own", ingresses::CONTROLLER));
        rules.class(&class("other", "example.com/other"));
        for (name, class) in [
            ("mine", Some("own")),
            ("others", Some("other")),
            ("unknown", Some("none")),
            ("without", None),
        ] {
            rules.ingress(&ingress(name, class));
        }
        assert_eq!(served(&rules), ["mine"]);
        rules.class_gone("own");
        assert_eq!(served(&rules), [""; 0]);
    }

    #[tokio::test]
    async fn a_change_of_the_status_is_none() {
        let rules = SharedRules::default();
        rules.ingress(&ingress("a", None));
        rules.changed().await;
        let mut same = ingress("a", None);
        same.metadata.resource_version = Some("7".to_owned());
        rules.ingress(&same);
        let waited = tokio::time::timeout(std::time::Duration::ZERO, rules.changed()).await;
        assert!(waited.is_err());
    }
}
