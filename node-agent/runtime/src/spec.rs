//! What a sandbox and a container are made from, and what is known about them afterwards.
//!
//! Plain data: it travels over the shim's socket and lies on disk for the next agent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A pod's sandbox: the namespaces and the cgroup that its containers share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The pod's uid; names the sandbox on this node.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Host name inside the pod; ignored with `host_network`.
    pub hostname: String,
    /// Folder of the pod's log files; made by the sandbox, kept when it goes.
    pub log_dir: PathBuf,
    /// Limits of the pod as a whole.
    pub resources: Resources,
    /// Keep the node's network and host name instead of a namespace.
    pub host_network: bool,
    /// The pod's class of service, which decides where its cgroup lies.
    #[serde(default)]
    pub qos: QosClass,
    /// Which processes its containers see.
    #[serde(default)]
    pub pids: PidNamespace,
    /// Map the pod's users to a range of its own on the node (`hostUsers: false`). Nothing of the node's namespaces can
    /// be shared then.
    #[serde(default)]
    pub user_namespace: bool,
    /// Keep the node's shared memory, semaphores and message queues instead of a namespace.
    #[serde(default)]
    pub host_ipc: bool,
    /// Kernel parameters of the pod's namespaces (`net.…`, `kernel.shm…`); none other is taken.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
}

/// Which processes a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Container,
    /// Those of all containers of its pod (`shareProcessNamespace`).
    Pod,
    /// Those of the node (`hostPID`).
    Node,
}

/// Kubernetes' classes of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum QosClass {
    /// Every container has equal requests and limits.
    #[default]
    Guaranteed,
    /// Some container has some request or limit.
    Burstable,
    /// No container has any.
    BestEffort,
}

/// One attempt at running one container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// `<name>-<attempt>`; unique in the pod.
    pub id: String,
    /// The container's name in the pod.
    pub name: String,
    /// Restarts before this attempt.
    pub attempt: u32,
    /// Unpacked layers of the image, top first.
    pub lower_dirs: Vec<PathBuf>,
    /// Command and arguments; the first is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment; `PATH` and `HOME` are added when absent.
    pub env: Vec<(String, String)>,
    /// Working directory, made when absent; empty means `/`.
    pub cwd: String,
    /// Who runs it.
    pub user: User,
    /// Limits of the container.
    pub resources: Resources,
    /// Where its log goes.
    pub log_path: PathBuf,
    /// Mount the root read-only.
    pub read_only_rootfs: bool,
    /// Files and folders of the node shown inside.
    pub mounts: Vec<Mount>,
    /// Deviations from the default capabilities.
    pub capabilities: Capabilities,
    /// Set `no_new_privs`.
    pub no_new_privileges: bool,
    /// All devices of the node, nothing masked, nothing read-only below `/proc` and `/sys`, no seccomp filter.
    /// Capabilities are asked for apart.
    #[serde(default)]
    pub privileged: bool,
    /// Which system calls are allowed.
    #[serde(default)]
    pub seccomp: Seccomp,
    /// Kubernetes' `procMount: Unmasked`: hide nothing below `/proc`.
    #[serde(default)]
    pub unmasked_proc: bool,
    /// An AppArmor profile that the kernel has loaded; `None` where nothing is asked for.
    #[serde(default)]
    pub apparmor_profile: Option<String>,
    /// Whom the kernel kills first when memory is short, -1000 to 1000; what this process may not give is not given.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// The runtime id of a running container whose processes it sees and is among (`targetContainerName`). Means nothing
    /// where all containers of the pod share theirs.
    #[serde(default)]
    pub target: Option<String>,
    /// Give it a terminal of its own instead of pipes.
    pub terminal: bool,
    /// Keep stdin open for whoever attaches; otherwise it is empty.
    pub stdin: bool,
    /// Close stdin after the first that attached has closed it. Means nothing to a terminal.
    #[serde(default)]
    pub stdin_once: bool,
}

/// Which seccomp profile confines a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The runtime's own, which lets through what containers usually need.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One of the operator's, by its path below [`Options::seccomp_profiles`].
    ///
    /// [`Options::seccomp_profiles`]: crate::Options::seccomp_profiles
    Localhost(String),
}

/// Numeric identity of a container's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further group ids.
    pub additional_gids: Vec<u32>,
}

/// Limits of a cgroup; `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time per period.
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds.
    pub cpu_period: Option<u64>,
    /// Memory in bytes; more is an OOM kill.
    pub memory_limit: Option<i64>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// Bytes of huge pages by their size as the kernel writes it (`2MB`).
    #[serde(default)]
    pub huge_pages: BTreeMap<String, u64>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the node; means nothing to a tmpfs.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
    /// With `read_only`: refuse them in what is mounted below the source too.
    #[serde(default)]
    pub recursive_read_only: bool,
    /// Show only this part of the source, which no link may leave; a missing one is made as a folder.
    #[serde(default)]
    pub sub_path: Option<PathBuf>,
    /// Which later mounts pass between node and container.
    #[serde(default)]
    pub propagation: Propagation,
    /// What is mounted.
    #[serde(default)]
    pub kind: MountKind,
    /// Further options, in the words of `mount(8)`: `nosuid`, `noexec`, for a tmpfs `size=65536k`, `mode=1777`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// What a [`Mount`] mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or folder of the node, with what is mounted below.
    #[default]
    Bind,
    /// Memory of the container's own, which ends with the container.
    Tmpfs,
}

/// Kubernetes' `mountPropagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Nothing passes.
    #[default]
    None,
    /// What the node mounts below the source appears in the container.
    HostToContainer,
    /// What the container mounts appears on the node, too.
    Bidirectional,
}

/// Changes to the default set of capabilities, names as Kubernetes has them (`NET_ADMIN`, `ALL`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Added after dropping.
    pub add: Vec<String>,
    /// Dropped first.
    pub drop: Vec<String>,
}

/// Proof of a successful start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Process id on the node.
    pub pid: i32,
    /// When the program was executed.
    pub started_at: Timestamp,
}

/// A container as the runtime knows it; it exists from its start until it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// `<name>-<attempt>`.
    pub id: String,
    /// The container's name in the pod.
    pub name: String,
    /// Restarts before this attempt.
    pub attempt: u32,
    /// Process id on the node.
    pub pid: i32,
    /// When the program was executed.
    pub started_at: Timestamp,
    /// Where its log goes.
    pub log_path: PathBuf,
    /// How it ended, once it has.
    pub finished: Option<Exit>,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when killed by one, 137 when unknown.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// When it ended, or was found ended.
    pub finished_at: Timestamp,
    /// Nobody saw the exit code (the shim was killed): `code` is 137 by convention.
    pub unknown: bool,
}
