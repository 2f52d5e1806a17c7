//! The agent's handle on all sandboxes of a node.

use std::path::PathBuf;
use std::sync::Arc;

use crate::errors::{OpenRuntimeError, RunSandboxError};
use crate::pod::Pod;
use crate::spec::SandboxSpec;

/// Where the runtime keeps what.
#[derive(Clone, Debug)]
pub struct Options {
    /// On disk; writable layers of containers.
    pub state_dir: PathBuf,
    /// On a tmpfs or disk: sockets, namespaces, bundles, exit codes. Gone after a reboot, like the pods.
    pub run_dir: PathBuf,
    /// Absolute cgroup under which pods get theirs, such as `/flotilla/node-1`.
    pub cgroup_parent: String,
    /// Re-executed as `<executable> shim …`.
    pub executable: PathBuf,
}

/// Makes sandboxes and finds those of an earlier agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    options: Arc<Options>,
}

impl Runtime {
    /// Prepares the folders; starts nothing.
    pub fn new(options: Options) -> Result<Runtime, OpenRuntimeError> {
        Ok(Runtime {
            options: Arc::new(options),
        })
    }

    /// Makes a pod's namespaces and cgroup and starts its shim.
    pub async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Pod, RunSandboxError> {
        Ok(Pod::placeholder(spec, self.options.run_dir.clone()))
    }

    /// Finds all sandboxes on this node, with live shim or without, and listens to their exits again.
    pub async fn adopt(&self) -> Vec<Pod> {
        Vec::new()
    }

    /// Undoes [`Runtime::new`] once no sandbox is left.
    pub fn close(&self) -> Result<(), OpenRuntimeError> {
        Ok(())
    }
}
