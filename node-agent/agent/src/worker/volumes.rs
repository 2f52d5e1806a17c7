//! A pod's volumes: tokens for them, what came of making them, and where containers see them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use flotilla_lifecycle::{Launch, Notice};
use flotilla_report::report;
use flotilla_runtime::Mount;
use flotilla_volumes::{MountError, SetUpError, TokenWanted, Tokens, tokens_wanted};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use super::Worker;
use crate::machine::VolumesOrder;
use crate::tokens::{is_fresh, is_valid, renewal};

/// A token that could not be replaced in time is asked for again after this long.
const TOKEN_RETRY: Duration = Duration::from_secs(10);

/// What came of making a pod's volumes.
pub(super) struct Outfit {
    made: Result<(), Vec<SetUpError>>,
    renewal_at: Option<Timestamp>,
}

impl Worker {
    pub(super) async fn set_up_volumes(&self) -> Outfit {
        let (tokens, renewal_at) = self.obtain_tokens().await;
        let checkpoint = &self.checkpoint;
        let order = VolumesOrder {
            pod: checkpoint.pod.clone(),
            references: checkpoint.references(),
            addresses: checkpoint.history.addresses.clone(),
            host_addresses: self.surroundings.host_addresses.clone(),
            allocatable: self.surroundings.allocatable.clone(),
            tokens,
        };
        Outfit {
            made: self.surroundings.machine.set_up_volumes(order).await,
            renewal_at,
        }
    }

    pub(super) fn learn_volumes(&mut self, outfit: Outfit, now: Timestamp) {
        self.renewal_at = outfit.renewal_at;
        match outfit.made {
            Ok(()) => self.checkpoint.history.volumes_ready(),
            Err(failures) => {
                for failure in failures {
                    self.tell(Notice::of_pod(true, "FailedMount", failure.to_string()));
                }
                self.checkpoint.history.volumes_failed(now);
            }
        }
    }

    /// Has the volumes looked over once a token in them is old.
    pub(super) fn note_renewal(&mut self) {
        if self.renewal_at.is_some_and(|at| at <= Timestamp::now()) {
            self.renewal_at = None;
            self.checkpoint.history.volumes_stale();
        }
    }

    /// The tokens that the volumes show or are to show, and when the first of them has to be replaced. One that is
    /// there and young is kept: a restart of the agent asks for none.
    async fn obtain_tokens(&self) -> (Tokens, Option<Timestamp>) {
        let pod = &self.checkpoint.pod;
        let wanted = tokens_wanted(pod);
        let mut tokens = Tokens::default();
        let mut renewal_at: Option<Timestamp> = None;
        if wanted.is_empty() {
            return (tokens, renewal_at);
        }
        let shown = self.surroundings.machine.shown_tokens(pod);
        for wanted in wanted {
            let (token, next) = self.obtain_token(&shown, &wanted).await;
            tokens.insert(wanted, token);
            renewal_at = renewal_at.into_iter().chain([next]).min();
        }
        (tokens, renewal_at)
    }

    async fn obtain_token(
        &self,
        shown: &BTreeMap<TokenWanted, String>,
        wanted: &TokenWanted,
    ) -> (Result<String, String>, Timestamp) {
        let now = Timestamp::now();
        let shown = shown.get(wanted);
        if let Some(token) = shown.filter(|token| is_fresh(token, now)) {
            return (Ok(token.clone()), renewal(token).unwrap_or(now + TOKEN_RETRY));
        }
        match self.surroundings.tokens.fetch(&self.checkpoint.pod, wanted).await {
            Ok(token) => {
                let next = renewal(&token).filter(|next| *next > now);
                (Ok(token), next.unwrap_or(now + TOKEN_RETRY))
            }
            Err(error) => {
                tracing::warn!(
                    pod = self.uid,
                    audience = wanted.audience,
                    error = report(&error),
                    "a service account token cannot be got now"
                );
                let kept = shown.filter(|token| is_valid(token, now)).cloned();
                (kept.ok_or_else(|| report(&error)), now + TOKEN_RETRY)
            }
        }
    }

    /// Everything of the node that the container sees: its volumes, and the pod's own files where no volume is.
    pub(super) fn mounts(&self, container: &Container, launch: &Launch) -> Result<Vec<Mount>, MountError> {
        let pod = &self.checkpoint.pod;
        let references = self.checkpoint.references();
        let machine = &self.surroundings.machine;
        let mut mounts = machine.mounts(pod, &references, container, &launch.env)?;
        let own = self.pod_files(launch.read_only_root);
        let is_free = |file: &Mount| mounts.iter().all(|mount| mount.destination != file.destination);
        let free: Vec<Mount> = own.into_iter().filter(is_free).collect();
        mounts.extend(free);
        // A volume on /etc comes before /etc/hosts.
        mounts.sort_by_key(|mount| mount.destination.components().count());
        Ok(mounts)
    }

    fn pod_files(&self, read_only: bool) -> [Mount; 3] {
        let folder = self.surroundings.files_dir.join(&self.uid);
        ["hosts", "hostname", "resolv.conf"].map(|name| Mount {
            source: folder.join(name),
            destination: PathBuf::from("/etc").join(name),
            read_only,
            ..Mount::default()
        })
    }

    pub(super) async fn remove_volumes(&mut self) -> bool {
        match self.surroundings.machine.remove_volumes(&self.uid).await {
            Ok(()) => {
                self.renewal_at = None;
                self.checkpoint.history.volumes_removed();
                true
            }
            Err(error) => {
                tracing::warn!(
                    pod = self.uid,
                    error = report(&error),
                    "a pod's volumes cannot be removed yet"
                );
                false
            }
        }
    }
}
