//! Keeps the kernel equal to what is known: the thin shell around [`crate::model`] and [`crate::kernel`].

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotilla_nftables::NetlinkError;
use flotilla_report::report;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::kernel::Kernel;
use crate::model::Model;

/// Between looks at the kernel, whether our table is still there.
const CHECK: Duration = Duration::from_secs(5);
/// After the kernel has refused a whole table.
const RETRY: Duration = Duration::from_secs(2);
/// So long a pod waits for its rules before that is told; it is tried again.
const ADMIT_LIMIT: Duration = Duration::from_secs(20);

/// Why policies cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Netfilter cannot be used.
    #[error("cannot enforce network policies")]
    Netlink(#[from] NetlinkError),
}

/// Why a pod may not start.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// Nobody has told the policies.
    #[error(
        "the network policies are not known yet: no server has told them since this node joined; the pod starts once one has"
    )]
    Unknown,
    /// The kernel does not take the rules.
    #[error("the pod's network policies are not in the kernel yet; the node's log says why")]
    NotProgrammed,
}

/// Policies, namespaces and pods as they become known. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct SharedModel {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    model: Mutex<Model>,
    changed: Notify,
    version: AtomicU64,
    synced: watch::Sender<Synced>,
    has_policies: watch::Sender<bool>,
    /// The newest version that is in the kernel.
    programmed: watch::Sender<u64>,
}

/// What is known in full.
#[derive(Debug, Clone, Copy, Default)]
struct Synced {
    policies: bool,
    namespaces: bool,
    pods: bool,
}

impl SharedModel {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a change; returns its version.
    pub fn change(&self, change: impl FnOnce(&mut Model)) -> u64 {
        let (version, has_policies) = {
            let mut model = self.model();
            change(&mut model);
            let version = self.inner.version.fetch_add(1, Ordering::Relaxed) + 1;
            (version, model.has_policies())
        };
        self.inner
            .has_policies
            .send_if_modified(|known| std::mem::replace(known, has_policies) != has_policies);
        self.inner.changed.notify_one();
        version
    }

    /// All policies have been told.
    pub fn policies_synced(&self) {
        self.inner.synced.send_modify(|synced| synced.policies = true);
    }

    /// All namespaces have been told.
    pub fn namespaces_synced(&self) {
        self.inner.synced.send_modify(|synced| synced.namespaces = true);
    }

    /// All pods have been told.
    pub fn pods_synced(&self) {
        self.inner.synced.send_modify(|synced| synced.pods = true);
    }

    /// Whether there are policies, so that pods of other nodes matter.
    pub fn has_policies(&self) -> watch::Receiver<bool> {
        self.inner.has_policies.subscribe()
    }

    /// The newest version that is in the kernel; 0 before there is any.
    pub fn programmed(&self) -> watch::Receiver<u64> {
        self.inner.programmed.subscribe()
    }

    /// Tells of a pod of this node and waits until its rules are in the kernel. It must not run before.
    pub async fn admit(&self, uid: &str, pod: &Pod, address: Ipv4Addr) -> Result<(), AdmitError> {
        let version = self.change(|model| model.local_pod(uid, pod, address));
        let mut programmed = self.programmed();
        let reached = programmed.wait_for(|programmed| *programmed >= version);
        match tokio::time::timeout(ADMIT_LIMIT, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) if self.is_synced() => Err(AdmitError::NotProgrammed),
            Ok(Err(_)) | Err(_) => Err(AdmitError::Unknown),
        }
    }

    fn is_synced(&self) -> bool {
        let synced = *self.inner.synced.borrow();
        is_enough(synced, *self.inner.has_policies.borrow())
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.inner.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without policies nobody follows pods.
fn is_enough(synced: Synced, has_policies: bool) -> bool {
    synced.policies && synced.namespaces && (synced.pods || !has_policies)
}

/// Enforces the policies of one node.
#[derive(Debug)]
pub struct Engine {
    shared: SharedModel,
}

/// What is in the kernel, and the way to it.
#[derive(Debug)]
struct State {
    kernel: Kernel,
    /// The kernel's state is not what the program says.
    is_lost: bool,
    /// Of the model that the kernel's rules were made of.
    version: u64,
    dns: Option<Ipv4Addr>,
}

impl Engine {
    /// Changes nothing yet.
    pub fn new(shared: SharedModel) -> Self {
        Self { shared }
    }

    /// Enforces policies until shutdown; the rules stay. What an earlier agent left is not touched before all policies
    /// and peers are known, so that a restart neither opens nor closes anything.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let inner = &self.shared.inner;
        let mut synced = inner.synced.subscribe();
        loop {
            let known = *synced.borrow_and_update();
            if is_enough(known, *inner.has_policies.borrow()) {
                break;
            }
            // Both arms only wait; the sender lives as long as the model.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = synced.changed() => {}
            }
        }
        let mut state = State {
            kernel: Kernel::open()?,
            is_lost: true,
            version: 0,
            dns: None,
        };
        let mut check = tokio::time::interval(CHECK);
        loop {
            let shared = self.shared.clone();
            state = off_thread(state, move |state| state.update(&shared)).await;
            if !state.is_lost {
                inner.programmed.send_replace(state.version);
            }
            // Every arm only waits.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = inner.changed.notified() => {}
                () = tokio::time::sleep(RETRY), if state.is_lost => {}
                _ = check.tick() => state = off_thread(state, State::check).await,
            }
        }
    }
}

/// Talking with the kernel may take a while for a whole table.
async fn off_thread(mut state: State, work: impl FnOnce(&mut State) + Send + 'static) -> State {
    let done = tokio::task::spawn_blocking(move || {
        work(&mut state);
        state
    });
    match done.await {
        Ok(state) => state,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

impl State {
    fn update(&mut self, shared: &SharedModel) {
        let begin = Instant::now();
        let (changes, everything) = {
            let mut model = shared.model();
            self.version = shared.inner.version.load(Ordering::Relaxed);
            let changes = model.take_changes();
            // Where names are answered is written into the rules that never change.
            self.is_lost |= self.dns != model.dns_address();
            self.dns = model.dns_address();
            (changes, self.is_lost.then(|| model.program().everything()))
        };
        let refused = match everything {
            Some(all) => return self.replace(&all),
            None => self.kernel.change(&changes),
        };
        if let Err(error) = refused {
            tracing::warn!(
                error = report(&error),
                "the kernel's network policies are not what they should be; all are written anew"
            );
            let all = {
                let mut model = shared.model();
                model.take_changes();
                model.program().everything()
            };
            self.replace(&all);
        }
        tracing::debug!(
            elements = changes.added.len() + changes.removed.len(),
            chains = changes.chains.len() + changes.chains_removed.len(),
            micros = begin.elapsed().as_micros(),
            "network policies programmed"
        );
    }

    fn replace(&mut self, all: &crate::program::Changes) {
        match self.kernel.replace(self.dns, all) {
            Ok(()) => self.is_lost = false,
            Err(error) => {
                self.is_lost = true;
                tracing::error!(
                    error = report(&error),
                    "network policies cannot be enforced; trying on, and no pod starts meanwhile"
                );
            }
        }
    }

    fn check(&mut self) {
        match self.kernel.is_intact() {
            Ok(true) => {}
            // The next round writes all of it.
            Ok(false) => {
                if !self.is_lost {
                    tracing::warn!("somebody has changed the network policies' rules; all are written anew");
                }
                self.is_lost = true;
            }
            Err(error) => {
                tracing::warn!(
                    error = report(&error),
                    "the network policies' rules cannot be checked"
                );
                self.is_lost = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
