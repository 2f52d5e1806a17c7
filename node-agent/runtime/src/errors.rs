//! Errors of the agent's side, one enum per operation.

use std::io;
use std::path::PathBuf;

/// The runtime's folders or executable cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenRuntimeError {
    /// A folder of the runtime cannot be made or mounted.
    #[error("cannot prepare the runtime folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The executable for shims cannot be opened.
    #[error("cannot open the executable {path} for shims")]
    Executable {
        /// The executable.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A sandbox cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RunSandboxError {
    /// A sandbox of this uid exists already.
    #[error("a sandbox for pod {uid} exists already")]
    Exists {
        /// The pod's uid.
        uid: String,
    },
    /// The uid cannot be a file name.
    #[error("{uid:?} is not a usable pod uid")]
    BadUid {
        /// The pod's uid.
        uid: String,
    },
    /// Namespaces of the node are not for users that are not the node's.
    #[error("hostUsers: false goes with neither hostNetwork, hostPID nor hostIPC: leave them out")]
    UsersOfNode,
    /// More pods with users of their own than there are ranges for.
    #[error("no range of user ids is left for a pod with hostUsers: false on this node")]
    NoUsersLeft,
    /// A kernel parameter that is not the pod's own.
    #[error("sysctl {name:?} is forbidden: {reason}")]
    Sysctl {
        /// The parameter's name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A step of bringing it up failed; what was made is gone again.
    #[error("cannot {step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The shim did not answer.
    #[error("the shim of pod {uid} did not come up")]
    Shim {
        /// The pod's uid.
        uid: String,
        /// What the connection said.
        source: ShimError,
    },
}

/// A container cannot be started. The messages are shown to users.
#[derive(Debug, thiserror::Error)]
pub enum StartContainerError {
    /// No such program: exit code 127.
    #[error("exec: {command:?}: executable file not found in $PATH")]
    CommandNotFound {
        /// The first argument.
        command: String,
    },
    /// A program at a path that does not exist: exit code 127.
    #[error("exec: {command:?}: stat {command}: no such file or directory")]
    PathNotFound {
        /// The first argument.
        command: String,
    },
    /// The program may not be executed: exit code 126.
    #[error("exec: {command:?}: {reason}")]
    NotExecutable {
        /// The first argument.
        command: String,
        /// Such as `permission denied` or `exec format error`.
        reason: String,
    },
    /// The working directory is no folder, or cannot be made.
    #[error("working directory {cwd:?} cannot be used: {reason}")]
    BadWorkingDirectory {
        /// The folder in the container.
        cwd: String,
        /// Why.
        reason: String,
    },
    /// The image has something else than a folder where the runtime mounts.
    #[error("the image is refused: {reason}")]
    BadImage {
        /// What is wrong with it.
        reason: String,
    },
    /// The spec itself cannot be run.
    #[error("{reason}")]
    BadSpec {
        /// What is wrong with it.
        reason: String,
    },
    /// Anything else in the way.
    #[error("cannot create the container: {reason}")]
    Create {
        /// The chain of causes.
        reason: String,
    },
    /// The shim is gone; the pod needs a new sandbox.
    #[error("the pod's shim cannot be asked")]
    Shim(#[source] ShimError),
}

impl StartContainerError {
    /// The exit code that stands for this failure in a container's status: 127, 126 or 128.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::CommandNotFound { .. } | Self::PathNotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 128,
        }
    }
}

/// A shim does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// It is dead or was told to end.
    #[error("the shim is gone")]
    Gone,
    /// It cannot be reached.
    #[error("cannot reach the shim at {path}")]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It answered with an error.
    #[error("the shim answered: {message}")]
    Refused {
        /// Its words.
        message: String,
    },
}

/// A signal cannot be delivered.
#[derive(Debug, thiserror::Error)]
pub enum KillContainerError {
    /// The pod has no such container.
    #[error("container {id} is not known")]
    Unknown {
        /// The container's id.
        id: String,
    },
    /// The kernel refused.
    #[error("cannot send signal {signal} to container {id}")]
    Signal {
        /// The container's id.
        id: String,
        /// The signal's number.
        signal: i32,
        /// Why.
        source: io::Error,
    },
    /// The shim cannot do it.
    #[error("cannot send signal {signal} to container {id}")]
    Shim {
        /// The container's id.
        id: String,
        /// The signal's number.
        signal: i32,
        /// Why.
        source: ShimError,
    },
}

/// The limits of a pod or container cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateResourcesError {
    /// The pod has no such container, or it has ended.
    #[error("container {id} is not running")]
    NotRunning {
        /// The container's id.
        id: String,
    },
    /// The kernel refused, such as a memory limit below what is used, or a pod's below its containers'.
    #[error("cannot change the limits of cgroup {cgroup}")]
    Write {
        /// The cgroup, from each hierarchy's root.
        cgroup: String,
        /// Why; names the file.
        source: io::Error,
    },
}

/// A container cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveContainerError {
    /// It still runs.
    #[error("container {id} still runs")]
    Running {
        /// The container's id.
        id: String,
    },
    /// The shim cannot do it.
    #[error("cannot remove container {id}")]
    Shim {
        /// The container's id.
        id: String,
        /// Why.
        source: ShimError,
    },
    /// A file or cgroup stays.
    #[error("cannot remove what container {id} leaves")]
    Leftover {
        /// The container's id.
        id: String,
        /// Why.
        source: io::Error,
    },
}

/// A sandbox cannot be taken down completely; calling again goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum DestroySandboxError {
    /// A step of taking it down failed.
    #[error("cannot {step} of pod {uid}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// The pod's uid.
        uid: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A process survives SIGKILL (it hangs in the kernel).
    #[error("processes of pod {uid} do not end")]
    Processes {
        /// The pod's uid.
        uid: String,
    },
}

/// A program cannot be run in a container, or its streams cannot be attached to. The messages are shown to users.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The pod has no such container.
    #[error("container {id} is not known")]
    Unknown {
        /// The container's id.
        id: String,
    },
    /// It has ended.
    #[error("container {id} is not running")]
    NotRunning {
        /// The container's id.
        id: String,
    },
    /// There is no such program, or it cannot be executed.
    #[error(transparent)]
    Command(StartContainerError),
    /// Anything else in the way.
    #[error("cannot exec in container {id}: {reason}")]
    Enter {
        /// The container's id.
        id: String,
        /// The chain of causes.
        reason: String,
    },
    /// The streams that came cannot be used.
    #[error("cannot use the streams of container {id}")]
    Streams {
        /// The container's id.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// The shim cannot do it, or has ended since.
    #[error("cannot reach container {id}")]
    Shim {
        /// The container's id.
        id: String,
        /// Why.
        source: ShimError,
    },
}

impl ExecError {
    /// The exit code that a shell would give: 127 for an unknown command, 126 for one that cannot be executed.
    /// `None` when no program is to blame.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Command(error) => Some(error.exit_code()),
            _ => None,
        }
    }

    pub(crate) fn from_failure(id: String, failure: StartContainerError) -> ExecError {
        match failure {
            StartContainerError::Create { reason } => Self::Enter { id, reason },
            other => Self::Command(other),
        }
    }
}
