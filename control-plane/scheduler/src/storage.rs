//! Where a pod can go for the sake of its claims, and what has to be settled before it is bound.
//!
//! Pure. A bound claim ties the pod to where its volume is. One that waits for its first consumer gets a volume that
//! is there already and can be reached from the node, or one that is made on the node.

use std::collections::HashMap;
use std::sync::Arc;

use flotilla_api::claims;
use k8s_openapi::api::core::v1::{Node, NodeSelector, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::cluster::NodeEntry;
use crate::filters::{Reason, matches_selector_term};

/// Claims, volumes and classes as the scheduler knows them.
#[derive(Debug, Default)]
pub struct Storage {
    /// By namespace and name.
    pub claims: HashMap<(String, String), Arc<PersistentVolumeClaim>>,
    /// By name.
    pub volumes: HashMap<String, Arc<PersistentVolume>>,
    /// By name.
    pub classes: HashMap<String, Arc<StorageClass>>,
    /// How many pods that are on nodes use a claim.
    pub users: HashMap<(String, String), u32>,
}

impl Storage {
    /// Counts a pod that has come to a node as a user of these claims.
    pub(crate) fn add_user(&mut self, claims: &[(String, String)]) {
        for claim in claims {
            *self.users.entry(claim.clone()).or_default() += 1;
        }
    }

    /// Counts it no more.
    pub(crate) fn remove_user(&mut self, claims: &[(String, String)]) {
        for claim in claims {
            if let Some(count) = self.users.get_mut(claim) {
                *count -= 1;
                if *count == 0 {
                    self.users.remove(claim);
                }
            }
        }
    }
}

/// The claims of a pod by namespace and name.
pub(crate) fn claims_used(pod: &Pod) -> Vec<(String, String)> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let names = claims::claims_of(pod).into_iter();
    names.map(|(name, _)| (namespace.clone(), name)).collect()
}

/// What a pod's claims ask of a node.
#[derive(Debug, Default)]
pub struct Needs<'a> {
    /// Volumes that are bound already.
    bound: Vec<&'a PersistentVolume>,
    /// Claims that wait for this pod, and the volumes that could be theirs.
    waiting: Vec<(&'a PersistentVolumeClaim, Vec<&'a PersistentVolume>)>,
    /// What keeps the pod from every node.
    obstacle: Option<String>,
    /// Another pod uses a claim that only one may use at a time.
    is_in_use: bool,
}

/// What has to be written down before a pod is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The volume is reserved for the claim.
    Reserve {
        /// The claim's namespace.
        namespace: String,
        /// The claim's name.
        claim: String,
        /// The volume's name.
        volume: String,
    },
    /// The claim's volume is to be made on the pod's node.
    Select {
        /// The claim's namespace.
        namespace: String,
        /// The claim's name.
        claim: String,
    },
}

impl<'a> Needs<'a> {
    /// Works out what the pod's claims mean; cheap for a pod without any.
    #[must_use]
    pub fn new(storage: &'a Storage, pod: &Pod) -> Needs<'a> {
        let mut needs = Needs::default();
        for (name, is_ephemeral) in claims::claims_of(pod) {
            if let Err(obstacle) = needs.add(storage, pod, &name, is_ephemeral) {
                needs.obstacle = Some(obstacle);
                break;
            }
        }
        needs
    }

    fn add(&mut self, storage: &'a Storage, pod: &Pod, name: &str, is_ephemeral: bool) -> Result<(), String> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let key = (namespace, name.to_owned());
        let Some(claim) = storage.claims.get(&key) else {
            return Err(match is_ephemeral {
                true => format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                ),
                false => format!("persistentvolumeclaim \"{name}\" not found"),
            });
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
            let volume = claims::volume_name(claim).unwrap_or_default();
            return Err(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
            ));
        }
        if is_ephemeral && !claims::is_made_for(claim, pod) {
            return Err(format!(
                "PVC \"{name}\" was not created for this pod (pod is not owner)"
            ));
        }
        let modes = claim
            .spec
            .iter()
            .flat_map(|spec| spec.access_modes.iter().flatten());
        self.is_in_use |=
            storage.users.contains_key(&key) && modes.into_iter().any(|mode| mode == "ReadWriteOncePod");
        if let Some(volume) = claims::volume_name(claim).filter(|_| claims::is_bound(claim)) {
            let missing =
                || "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".to_owned();
            self.bound.push(storage.volumes.get(volume).ok_or_else(missing)?);
            return Ok(());
        }
        let class = claim.spec.as_ref().and_then(claims::class_of);
        let class = class.and_then(|name| storage.classes.get(name));
        let waits =
            class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
        if !waits {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        let volumes = storage.volumes.values().map(|volume| &**volume);
        let fitting = volumes.filter(|volume| claims::fits(volume, claim)).collect();
        self.waiting.push((claim, fitting));
        Ok(())
    }

    /// What keeps the pod from every node, in Kubernetes' words.
    #[must_use]
    pub fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }

    /// Whether anything must be settled before the pod can be bound.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the node can have all the pod's volumes.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub fn check(&self, storage: &Storage, entry: &NodeEntry) -> Result<(), Reason> {
        if self.is_in_use {
            return Err(Reason::ClaimInUse);
        }
        let Some(node) = &entry.node else { return Ok(()) };
        if !self.bound.iter().all(|volume| reaches(volume, node)) {
            return Err(Reason::VolumeAffinity);
        }
        self.settle(storage, node).map(drop)
    }

    /// What to write down if the pod goes to this node.
    ///
    /// # Errors
    ///
    /// When a claim can have no volume there.
    pub fn settle(&self, storage: &Storage, node: &Node) -> Result<Vec<Settlement>, Reason> {
        let mut taken: Vec<&str> = Vec::new();
        let mut settlements = Vec::new();
        for (claim, volumes) in &self.waiting {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            let (namespace, name) = (text(&claim.metadata.namespace), text(&claim.metadata.name));
            let free = volumes.iter().copied().filter(|volume| {
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                reaches(volume, node) && !taken.contains(&name)
            });
            if let Some(found) = claims::best(free, claim) {
                let volume = found.metadata.name.as_deref().unwrap_or_default();
                taken.push(volume);
                settlements.push(Settlement::Reserve {
                    namespace,
                    claim: name,
                    volume: volume.to_owned(),
                });
                continue;
            }
            can_be_made(storage, claim, node)?;
            settlements.push(Settlement::Select {
                namespace,
                claim: name,
            });
        }
        Ok(settlements)
    }
}

/// Whether a volume for the claim can be made on the node.
fn can_be_made(storage: &Storage, claim: &PersistentVolumeClaim, node: &Node) -> Result<(), Reason> {
    let annotations = claim.metadata.annotations.as_ref();
    let selected = annotations.and_then(|annotations| annotations.get(claims::SELECTED_NODE));
    if selected.is_some() && selected != node.metadata.name.as_ref() {
        // It is being made elsewhere.
        return Err(Reason::VolumeAffinity);
    }
    let class = claim.spec.as_ref().and_then(claims::class_of);
    let class = class.and_then(|name| storage.classes.get(name));
    let is_made = class.is_some_and(|class| class.provisioner != "kubernetes.io/no-provisioner");
    let is_allowed = class.is_some_and(|class| {
        let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
        let labels = node.metadata.labels.as_ref();
        let has = |key: &str, values: &[String]| {
            labels
                .and_then(|labels| labels.get(key))
                .is_some_and(|value| values.contains(value))
        };
        topologies.is_empty()
            || topologies.iter().any(|term| {
                let mut wanted = term.match_label_expressions.iter().flatten();
                wanted.all(|wanted| has(&wanted.key, &wanted.values))
            })
    });
    match is_made && is_allowed {
        true => Ok(()),
        false => Err(Reason::NoVolume),
    }
}

/// Whether the volume can be used on the node.
fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required: Option<&NodeSelector> = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|any| {
        any.node_selector_terms
            .iter()
            .any(|term| matches_selector_term(term, node))
    })
}

#[cfg(test)]
mod tests;
