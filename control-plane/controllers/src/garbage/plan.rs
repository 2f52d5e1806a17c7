//! Decides what becomes of an object, given its owners and its dependents.
//!
//! Pure.

use flotilla_resources::Propagation;

use super::graph::{FOREGROUND, Node, ORPHAN};

/// What is known of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It is there to stay.
    Solid,
    /// It is being deleted and waits for its dependents.
    Waiting,
    /// It is gone, or another object has its name.
    Absent,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Keep,
    /// Its dependents are gone: nothing holds it any more.
    EndForeground,
    /// Look at its dependents: it waits for them.
    AskDependents,
    /// Let its dependents go, then itself.
    Orphan,
    /// These owners (uids) are gone or going; others hold it.
    DropOwners(Vec<String>),
    /// Nobody holds it.
    Delete(Propagation),
}

/// The verdict on `node`; `owners` stand in the order of its references.
pub(crate) fn plan(node: &Node, owners: &[Owner], dependents: &[&Node]) -> Verdict {
    if node.orphans_dependents() {
        return Verdict::Orphan;
    }
    if node.waits_for_dependents() {
        let held = dependents
            .iter()
            .any(|dependent| dependent.blocks(&node.meta.uid));
        return if held {
            Verdict::AskDependents
        } else {
            Verdict::EndForeground
        };
    }
    if node.is_deleting() || owners.is_empty() {
        return Verdict::Keep;
    }
    if owners.contains(&Owner::Solid) {
        return drop_others(node, owners);
    }
    if owners.contains(&Owner::Waiting) && !dependents.is_empty() {
        // Its own dependents must be gone before it is, as its owner waits for it.
        return Verdict::Delete(Propagation::Foreground);
    }
    Verdict::Delete(match () {
        () if node.has_finalizer(ORPHAN) => Propagation::Orphan,
        () if node.has_finalizer(FOREGROUND) => Propagation::Foreground,
        () => Propagation::Background,
    })
}

fn drop_others(node: &Node, owners: &[Owner]) -> Verdict {
    let references = node.meta.owner_references.iter().zip(owners);
    let others = references.filter(|(_, owner)| **owner != Owner::Solid);
    let uids: Vec<String> = others.map(|(reference, _)| reference.uid.clone()).collect();
    if uids.is_empty() {
        Verdict::Keep
    } else {
        Verdict::DropOwners(uids)
    }
}
