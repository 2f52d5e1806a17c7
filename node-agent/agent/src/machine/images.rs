//! Images of this machine: held for pods, and pulled.

use std::time::Duration;

use flotilla_images::{Image, Keyring, Progress, Pulled, StoreError};
use flotilla_report::report;

use super::{FindImageError, LocalMachine};

/// A pull that takes this long is told of, and then after twice the time, and so on.
const PROGRESS_FIRST: Duration = Duration::from_secs(10);
/// At the latest after this long it is told of again.
const PROGRESS_LONGEST: Duration = Duration::from_secs(120);

impl LocalMachine {
    pub(super) async fn hold(&self, reference: &str, holder: &str) -> Result<Option<Image>, FindImageError> {
        let (store, reference, holder) = (self.store.clone(), reference.to_owned(), holder.to_owned());
        let found = tokio::task::spawn_blocking(move || store.hold(&reference, &holder)).await;
        Ok(found.map_err(|_| FindImageError::Cancelled)??)
    }

    pub(super) fn release_images(&self, uid: &str) -> Result<(), StoreError> {
        let is_own = |holder: &String| holder.split_once('.').is_some_and(|(of, _)| of == uid);
        self.store
            .holders()?
            .iter()
            .filter(|holder| is_own(holder))
            .try_for_each(|holder| self.store.release(holder))
    }

    pub(super) async fn pull_image(
        &self,
        reference: &str,
        keyring: Keyring,
        is_always: bool,
        told: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Pulled, String> {
        let mut ticket = self
            .puller
            .pull(reference, keyring, is_always)
            .map_err(|error| report(&error))?;
        let mut wait = PROGRESS_FIRST;
        loop {
            // Both arms only wait.
            tokio::select! {
                done = ticket.done() => return done.map_err(|error| report(&*error)),
                () = tokio::time::sleep(wait) => told(ticket.progress()),
            }
            wait = (wait * 2).min(PROGRESS_LONGEST);
        }
    }
}
