//! The ends of a run: whether everybody serves again, and the last look at everything.

use flotilla_history::{Action, Outcome, Require};

use super::Clients;

/// A client of its own in the history.
const PROBE: u32 = 1000;
const PAUSE_MS: u64 = 50;

impl Clients {
    /// Writes and reads through each address until all have done it once.
    pub(super) async fn probe_all(self) {
        let mut count = 0;
        let mut served: Vec<String> = Vec::new();
        loop {
            let addresses = self.network.addresses();
            let Some(address) = addresses.iter().find(|address| !served.contains(address)) else {
                break;
            };
            count += 1;
            if self.is_served_by(address, count).await {
                served.push(address.clone());
            } else {
                self.pause(PAUSE_MS).await;
            }
        }
        self.shared().is_served = true;
    }

    async fn is_served_by(&self, address: &str, count: u32) -> bool {
        let key = "a/probe".to_owned();
        let put = Action::Put {
            key: key.clone(),
            value: format!("probe-{count}"),
            require: Require::Anything,
        };
        let written = self.ask(PROBE, address.to_owned(), put).await;
        let read = self.ask(PROBE, address.to_owned(), Action::Get { key }).await;
        matches!((written, read), (Outcome::Written(_), Outcome::Read(_)))
    }

    /// Lists everything once all operations have returned.
    pub(super) async fn last_look(self) {
        loop {
            let all = Action::List {
                prefix: String::new(),
            };
            let address = self.anyone();
            let call = super::perform(&self.network, &address, all, 0);
            if let Ok(Outcome::Listed(listing)) = tokio::time::timeout(super::PATIENCE, call).await {
                let shared = &mut *self.shared();
                shared.through = Some(listing.revision);
                shared.history.last = Some(listing);
                return;
            }
            self.pause(PAUSE_MS).await;
        }
    }
}
