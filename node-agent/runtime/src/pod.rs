//! The agent's handle on one pod's sandbox.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::errors::{
    DestroySandboxError, KillContainerError, RemoveContainerError, ShimError, StartContainerError,
};
use crate::spec::{ContainerSpec, ContainerState, SandboxSpec, Started};

/// One pod's sandbox. Cheap to clone; dropping it changes nothing for the pod.
#[derive(Clone, Debug)]
pub struct Pod {
    spec: Arc<SandboxSpec>,
    dir: PathBuf,
    changes: Arc<watch::Sender<u64>>,
}

impl Pod {
    pub(crate) fn placeholder(spec: SandboxSpec, dir: PathBuf) -> Pod {
        Pod {
            spec: Arc::new(spec),
            dir,
            changes: Arc::new(watch::channel(0).0),
        }
    }

    /// The pod's uid.
    pub fn uid(&self) -> &str {
        &self.spec.uid
    }

    /// What the sandbox was made from.
    pub fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    /// A file that stands for the pod's network namespace.
    pub fn netns(&self) -> PathBuf {
        self.dir.join("net")
    }

    /// Whether containers can still be started here; once false, always false.
    pub fn shim_alive(&self) -> bool {
        false
    }

    /// Creates and starts a container; returns once its program has been executed.
    pub async fn start_container(&self, _spec: ContainerSpec) -> Result<Started, StartContainerError> {
        Err(StartContainerError::Shim(ShimError::Gone))
    }

    /// Sends a signal to the container's init; SIGKILL ends all of its processes. A finished container is fine.
    pub async fn kill(&self, id: &str, signal: i32) -> Result<(), KillContainerError> {
        Err(KillContainerError::Shim {
            id: id.to_owned(),
            signal,
            source: ShimError::Gone,
        })
    }

    /// Removes a finished container: cgroup, mounts, files. Its log stays. Unknown ids are fine.
    pub async fn remove_container(&self, id: &str) -> Result<(), RemoveContainerError> {
        Err(RemoveContainerError::Shim {
            id: id.to_owned(),
            source: ShimError::Gone,
        })
    }

    /// All containers that were started and not yet removed, oldest first.
    pub fn containers(&self) -> Vec<ContainerState> {
        Vec::new()
    }

    /// Changes whenever a container has ended or the shim has died; then look at [`Pod::containers`].
    pub fn exits(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Kills what still runs and removes shim, namespaces, cgroup and files; logs stay.
    pub async fn destroy(&self) -> Result<(), DestroySandboxError> {
        Ok(())
    }
}
