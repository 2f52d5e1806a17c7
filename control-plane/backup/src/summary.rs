//! How many objects of each kind there are, and how long they are.

use std::collections::BTreeMap;

use flotilla_store::Snapshot;
use serde::{Deserialize, Serialize};

/// What is in a store, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// All objects.
    pub objects: u64,
    /// Length of their JSON.
    pub bytes: u64,
    /// Each kind, by group and resource.
    pub kinds: Vec<KindCount>,
}

/// The objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCount {
    /// Group, empty for the core group.
    pub group: String,
    /// Plural, like `pods`.
    pub resource: String,
    /// How many there are.
    pub objects: u64,
    /// Length of their JSON.
    pub bytes: u64,
}

impl Summary {
    /// Counts.
    pub fn of(snapshot: &Snapshot) -> Summary {
        let mut kinds: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
        for object in snapshot.iter() {
            let name = &object.key.resource;
            let (objects, bytes) = kinds.entry((&name.group, &name.resource)).or_default();
            *objects += 1;
            *bytes += object.json.len() as u64;
        }
        let kinds: Vec<KindCount> = kinds
            .into_iter()
            .map(|((group, resource), (objects, bytes))| KindCount {
                group: group.to_owned(),
                resource: resource.to_owned(),
                objects,
                bytes,
            })
            .collect();
        Summary {
            objects: kinds.iter().map(|kind| kind.objects).sum(),
            bytes: kinds.iter().map(|kind| kind.bytes).sum(),
            kinds,
        }
    }
}
