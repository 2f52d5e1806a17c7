//! Runs pods: namespaces and cgroups, one shim per pod, containers by libcontainer, log files.
//!
//! The agent's side ([`Runtime`], [`Pod`], [`logs`]) is asynchronous and never calls libcontainer: that
//! deadlocks in a process with several threads. The shim's side ([`shim_main`]) is one single-threaded
//! process per pod, which forks once per operation and calls libcontainer in the fork. An agent that dies
//! loses nothing: its successor finds all of it with [`Runtime::adopt`].

mod capabilities;
mod cgroup;
mod connection;
mod containers;
mod descriptors;
mod errors;
mod exec;
mod layout;
pub mod logs;
mod overlay;
mod pod;
mod protocol;
mod resources;
mod runtime;
mod sandbox;
mod seccomp;
mod shim;
mod spec;
mod sys;
mod sysctl;
mod terminal;
mod users;

pub use cgroup::Usage;
pub use errors::{
    DestroySandboxError, ExecError, KillContainerError, OpenRuntimeError, RemoveContainerError,
    RunSandboxError, ShimError, StartContainerError, UpdateResourcesError,
};
pub use exec::{AttachSpec, Exec, ExecReader, ExecSpec, ExecWriter, TerminalSize};
pub use pod::Pod;
pub use runtime::{Options, Runtime};
pub use shim::shim_main;
pub use spec::{
    Capabilities, ContainerSpec, ContainerState, Exit, Mount, MountKind, PidNamespace, Propagation, QosClass,
    Resources, SandboxSpec, Seccomp, Started, User,
};
