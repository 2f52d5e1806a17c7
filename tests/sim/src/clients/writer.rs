//! A client that writes and reads a few keys, over and over.

use std::collections::BTreeMap;

use flotilla_history::{Action, Found, Outcome, Require, Revision};

use super::Clients;
use crate::objects::NAMESPACES;

/// Keys of each namespace: few, so that clients meet.
const KEYS: u64 = 4;
/// Longest pause between two operations.
const PAUSE_MS: u64 = 60;

/// What a client was last shown of each key.
type Known = BTreeMap<String, Revision>;

impl Clients {
    /// Asks one thing after another until it is told to stop.
    pub(super) async fn write(self, client: u32) {
        let mut known = Known::new();
        let mut count = 0;
        while !self.stopping.is_cancelled() {
            self.pause(PAUSE_MS).await;
            count += 1;
            let action = self.choose(&known, format!("{client}-{count}"));
            let outcome = self.ask(client, self.anyone(), action.clone()).await;
            learn(&mut known, &action, &outcome);
        }
        self.shared().writing -= 1;
    }

    fn choose(&self, known: &Known, value: String) -> Action {
        let namespace = self.chance.pick(&NAMESPACES).unwrap_or_default();
        let key = format!("{namespace}/{}", self.chance.number(0..KEYS));
        let at = known.get(&key).map_or(Require::Absent, |at| Require::At(*at));
        let put = |key, require| Action::Put { key, value, require };
        match self.chance.number(0..20) {
            0..5 => put(key, Require::Anything),
            5..11 => put(key, at),
            11 => put(key, Require::Absent),
            12 => put(key, Require::Present),
            13 => Action::Delete {
                key,
                require: Require::Anything,
            },
            14 => Action::Delete { key, require: at },
            15..19 => Action::Get { key },
            _ => Action::List {
                prefix: self.any_prefix(),
            },
        }
    }

    /// One namespace, or all.
    pub(super) fn any_prefix(&self) -> String {
        if self.chance.one_in(2) {
            return String::new();
        }
        let namespace = self.chance.pick(&NAMESPACES).unwrap_or_default();
        format!("{namespace}/")
    }
}

fn learn(known: &mut Known, action: &Action, outcome: &Outcome) {
    match (action, outcome) {
        (Action::Put { key, .. }, Outcome::Written(Some(revision))) => {
            known.insert(key.clone(), *revision);
        }
        (Action::Delete { key, .. }, Outcome::Written(_) | Outcome::Unchanged)
        | (Action::Put { key, .. } | Action::Delete { key, .. }, Outcome::Refused(Found::Nothing))
        | (Action::Get { key }, Outcome::Read(None)) => {
            known.remove(key);
        }
        (Action::Put { key, .. } | Action::Delete { key, .. }, Outcome::Refused(Found::Object(object)))
        | (Action::Get { key }, Outcome::Read(Some(object))) => {
            known.insert(key.clone(), object.revision);
        }
        (Action::List { .. }, Outcome::Listed(listing)) => {
            let shown = listing.objects.iter();
            known.extend(shown.map(|(key, object)| (key.clone(), object.revision)));
        }
        _ => {}
    }
}
