//! What the outbox knows of static pods: under which uid the control plane knows each, and which mirrors it is to make.

use std::collections::BTreeMap;

use bytes::Bytes;
use flotilla_proto::node::{MirrorPod, agent_message::Kind};

/// The static pods of this node, by uid.
#[derive(Default)]
pub(super) struct Statics(BTreeMap<String, Static>);

#[derive(Default)]
struct Static {
    /// The uid of its mirror; without one nothing is told about it.
    mirror: Option<String>,
    wanted: Option<Wanted>,
}

/// A mirror that is to be made.
struct Wanted {
    json: Bytes,
    sequence: u64,
    is_in_flight: bool,
}

impl Statics {
    pub(super) fn shown_by(&mut self, uid: &str, mirror: Option<String>) {
        let known = self.0.entry(uid.to_owned()).or_default();
        if mirror.is_some() {
            known.wanted = None;
        }
        known.mirror = mirror;
    }

    /// False when the mirror is asked for already.
    pub(super) fn want(&mut self, uid: &str, sequence: u64, json: impl FnOnce() -> Bytes) -> bool {
        let known = self.0.entry(uid.to_owned()).or_default();
        let is_new = known.wanted.is_none();
        known.wanted.get_or_insert_with(|| Wanted {
            json: json(),
            sequence,
            is_in_flight: false,
        });
        is_new
    }

    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| is_there(uid));
    }

    /// The uid under which the control plane knows the pod; none while it does not.
    pub(super) fn known_as<'a>(&'a self, uid: &'a str) -> Option<&'a str> {
        match self.0.get(uid) {
            None => Some(uid),
            Some(known) => known.mirror.as_deref(),
        }
    }

    pub(super) fn lands_nowhere(&mut self) {
        let wanted = self.0.values_mut().filter_map(|known| known.wanted.as_mut());
        wanted.for_each(|wanted| wanted.is_in_flight = false);
    }

    pub(super) fn is_due(&self) -> bool {
        let mut wanted = self.0.values().filter_map(|known| known.wanted.as_ref());
        wanted.any(|wanted| !wanted.is_in_flight)
    }

    pub(super) fn take(&mut self) -> Vec<Kind> {
        let wanted = self.0.values_mut().filter_map(|known| known.wanted.as_mut());
        let due = wanted.filter(|wanted| !wanted.is_in_flight);
        let message = |wanted: &mut Wanted| {
            wanted.is_in_flight = true;
            Kind::Mirror(MirrorPod {
                pod_json: wanted.json.clone(),
                sequence: wanted.sequence,
            })
        };
        due.map(message).collect()
    }

    /// True when this was about a mirror.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> bool {
        let is_it = |known: &Static| {
            let wanted = known.wanted.as_ref();
            wanted.is_some_and(|wanted| wanted.sequence == sequence)
        };
        let found = self.0.values_mut().find(|known| is_it(known));
        found.is_some_and(|known| known.wanted.take().is_some())
    }
}
