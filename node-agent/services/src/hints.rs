//! Which endpoints a node should use, by what slices hint at: those for its zone, or for itself. Pure.
//!
//! The rules are kube-proxy's. Hints are ignored unless every ready endpoint has one and at least one of them is for
//! here, so that they never leave a node without endpoints.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::discovery::v1::EndpointHints;

use crate::model::Candidate;

/// What one kind of hint says to this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Hint {
    /// Nothing.
    #[default]
    None,
    /// The endpoint is for others.
    Elsewhere,
    /// The endpoint is for here.
    Here,
}

/// What an endpoint's hints say to this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Nearness {
    pub(crate) node: Hint,
    pub(crate) zone: Hint,
}

/// Names a set of hints in a [`HintTable`]; 0: there are none.
pub(crate) type HintIndex = u16;

/// Sets of hints, each kept once: endpoints are many, zones are few.
#[derive(Debug)]
pub(crate) struct HintTable {
    own_node: Box<str>,
    own_zone: Option<Box<str>>,
    known: Vec<Hints>,
    indices: HashMap<Hints, HintIndex>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Hints {
    node: Hint,
    zones: BTreeSet<String>,
}

impl HintTable {
    /// Knows no hints, and no zone of this node.
    pub(crate) fn new(own_node: &str) -> Self {
        Self {
            own_node: own_node.into(),
            own_zone: None,
            known: vec![Hints::default()],
            indices: HashMap::from([(Hints::default(), 0)]),
        }
    }

    /// This node is in a zone, or in none. Says whether that is news.
    pub(crate) fn set_zone(&mut self, zone: Option<&str>) -> bool {
        let zone = zone.filter(|zone| !zone.is_empty());
        let is_news = self.own_zone.as_deref() != zone;
        self.own_zone = zone.map(Into::into);
        is_news
    }

    /// Keeps the hints of an endpoint.
    pub(crate) fn keep(&mut self, hints: Option<&EndpointHints>) -> HintIndex {
        let Some(hints) = hints else { return 0 };
        let nodes = hints.for_nodes.as_deref().unwrap_or_default();
        let node = match nodes.iter().any(|node| *node.name == *self.own_node) {
            true => Hint::Here,
            false if nodes.is_empty() => Hint::None,
            false => Hint::Elsewhere,
        };
        let zones = hints.for_zones.iter().flatten();
        let hints = Hints {
            node,
            zones: zones.map(|zone| zone.name.clone()).collect(),
        };
        if let Some(known) = self.indices.get(&hints) {
            return *known;
        }
        // Beyond the last index endpoints go without hints, which are then ignored for their services.
        let Ok(index) = HintIndex::try_from(self.known.len()) else {
            return 0;
        };
        self.known.push(hints.clone());
        self.indices.insert(hints, index);
        index
    }

    /// What the hints say to this node as it is now.
    pub(crate) fn nearness(&self, index: HintIndex) -> Nearness {
        let Some(hints) = self.known.get(usize::from(index)) else {
            return Nearness::default();
        };
        let is_own = |zone: &str| hints.zones.contains(zone);
        let zone = match self.own_zone.as_deref().is_some_and(is_own) {
            true => Hint::Here,
            false if hints.zones.is_empty() => Hint::None,
            false => Hint::Elsewhere,
        };
        Nearness {
            node: hints.node,
            zone,
        }
    }
}

/// The candidates that this node should use.
pub(crate) fn near(candidates: &[Candidate]) -> impl Iterator<Item = &Candidate> + Clone {
    let node = |nearness: Nearness| nearness.node;
    let zone = |nearness: Nearness| nearness.zone;
    let kinds: [fn(Nearness) -> Hint; 2] = [node, zone];
    let heeded = kinds.into_iter().find(|kind| {
        let mut ready = candidates.iter().filter(|one| one.is_ready);
        let is_here = |one: &Candidate| kind(one.nearness) == Hint::Here;
        ready.clone().all(|one| kind(one.nearness) != Hint::None) && ready.any(is_here)
    });
    candidates
        .iter()
        .filter(move |one| heeded.is_none_or(|kind| kind(one.nearness) == Hint::Here))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::{Value, json};

    use super::*;

    /// Endpoints by number, as `node hint/zone hint` and `!` where one is not ready; the numbers of those to use.
    fn used(zone: &str, endpoints: &[&str]) -> Vec<u8> {
        let mut table = HintTable::new("here");
        table.set_zone(Some(zone));
        let list = |name: &str| -> Value {
            match name {
                "" => Value::Null,
                name => json!([{"name": name}]),
            }
        };
        let candidate = |(number, text): (usize, &&str)| {
            let hint = text.trim_end_matches('!');
            let (node, zone) = hint.split_once('/').unwrap();
            let hints = json!({"forNodes": list(node), "forZones": list(zone)});
            let hints: EndpointHints = serde_json::from_value(hints).unwrap();
            let index = table.keep(Some(&hints));
            Candidate {
                address: Ipv4Addr::new(10, 42, 0, u8::try_from(number).unwrap()),
                port: 80,
                is_ready: *text == hint,
                is_draining: false,
                is_local: false,
                nearness: table.nearness(index),
            }
        };
        let all: Vec<Candidate> = endpoints.iter().enumerate().map(candidate).collect();
        near(&all).map(|one| one.address.octets()[3]).collect()
    }

    #[test]
    fn endpoints_for_the_zone_are_used_if_all_have_hints_and_some_are_for_here() {
        assert_eq!(used("a", &["/a", "/b", "/a"]), [0, 2]);
        assert_eq!(used("c", &["/a", "/b"]), [0, 1], "none is for here");
        assert_eq!(used("a", &["/a", "/"]), [0, 1], "one has no hint");
        assert_eq!(used("", &["/a", "/b"]), [0, 1], "the node is in no zone");
        assert_eq!(
            used("a", &["/a!", "/b"]),
            [0, 1],
            "those that are not ready do not count"
        );
        assert_eq!(used("a", &["/a", "/!"]), [0], "nor do their hints lack");
        assert_eq!(used("a", &[]), [0; 0]);
    }

    #[test]
    fn endpoints_for_the_node_come_before_those_for_its_zone() {
        assert_eq!(used("a", &["here/a", "other/a", "other/b"]), [0]);
        assert_eq!(used("a", &["third/a", "other/a", "other/b"]), [0, 1]);
        assert_eq!(used("c", &["third/a", "other/b"]), [0, 1]);
        assert_eq!(used("b", &["here/a", "/b"]), [1], "one has no hint for a node");
    }
}
