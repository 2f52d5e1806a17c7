//! Who owns whom.
//!
//! Pure. Owners need not exist: an edge to an absent owner is what garbage collection is about.

use std::collections::{BTreeSet, HashMap};

use flotilla_api::Kind;
use flotilla_store::Key;

use crate::follow::Meta;

/// Waits until the dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Waits until the dependents have been let go.
pub(crate) const ORPHAN: &str = "orphan";

/// One object.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: &'static Kind,
    pub(crate) key: Key,
    pub(crate) meta: Meta,
}

impl Node {
    /// Whether somebody asked for its deletion.
    pub(crate) fn is_deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    /// Whether it is being deleted and waits for its dependents.
    pub(crate) fn waits_for_dependents(&self) -> bool {
        self.is_deleting() && self.has_finalizer(FOREGROUND)
    }

    /// Whether it is being deleted and its dependents are to stay.
    pub(crate) fn orphans_dependents(&self) -> bool {
        self.is_deleting() && self.has_finalizer(ORPHAN)
    }

    /// Whether it carries this finalizer.
    pub(crate) fn has_finalizer(&self, name: &str) -> bool {
        self.meta.finalizers.iter().any(|finalizer| finalizer == name)
    }

    /// Whether it keeps that owner from going in a foreground deletion.
    pub(crate) fn blocks(&self, owner: &str) -> bool {
        let mut owners = self.meta.owner_references.iter();
        owners.any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
    }

    fn owners(&self) -> impl Iterator<Item = &str> {
        self.meta.owner_references.iter().map(|owner| owner.uid.as_str())
    }
}

/// All objects by uid, and the edges between them.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    /// One object.
    pub(crate) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The objects that name this one as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<&Node> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get(uid)).collect()
    }

    /// Takes an object in. Returns the uids of the objects that have to be looked at because of it.
    pub(crate) fn observe(&mut self, node: Node) -> Vec<String> {
        let uid = node.meta.uid.clone();
        let former = self.unlink(&uid);
        for owner in node.owners() {
            self.dependents
                .entry(owner.to_owned())
                .or_default()
                .insert(uid.clone());
        }
        let mut concerned = self.waiting_owners(former.as_ref());
        let ownerless = node.owners().any(|owner| match self.nodes.get(owner) {
            None => true,
            Some(owner) => owner.waits_for_dependents(),
        });
        if ownerless || node.waits_for_dependents() || node.orphans_dependents() {
            concerned.push(uid.clone());
        }
        self.nodes.insert(uid, node);
        concerned
    }

    /// Takes an object out. Returns the uids of the objects that have to be looked at because of it.
    pub(crate) fn forget(&mut self, uid: &str) -> Vec<String> {
        let former = self.unlink(uid);
        self.nodes.remove(uid);
        let mut concerned = self.waiting_owners(former.as_ref());
        concerned.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        concerned
    }

    /// Takes the edges of an object to its owners out. Returns the object as it was.
    fn unlink(&mut self, uid: &str) -> Option<Node> {
        let former = self.nodes.get(uid).cloned()?;
        for owner in former.owners() {
            if let Some(dependents) = self.dependents.get_mut(owner) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
        Some(former)
    }

    /// Owners that may go now that a dependent changed or went.
    fn waiting_owners(&self, former: Option<&Node>) -> Vec<String> {
        let owners = former.into_iter().flat_map(Node::owners);
        let waits = |owner: &&str| self.nodes.get(*owner).is_some_and(Node::waits_for_dependents);
        owners.filter(waits).map(str::to_owned).collect()
    }
}
