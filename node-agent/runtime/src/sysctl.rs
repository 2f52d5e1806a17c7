//! Kernel parameters of a pod's own namespaces.
//!
//! Only parameters that a namespace has for itself are taken: others would change the node.

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::process::{Uid, dumpable_behavior, set_dumpable_behavior};
use rustix::thread::set_thread_res_uid;

use crate::errors::RunSandboxError;
use crate::spec::SandboxSpec;
use crate::users::UserRange;

/// Parameters of the namespace for shared memory, semaphores and message queues; a dot at the end: all below.
const OF_IPC: [&str; 12] = [
    "kernel.auto_msgmni",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_next_id",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.msg_next_id",
    "fs.mqueue.",
];

/// Refuses what is not the pod's own.
pub(crate) fn check(spec: &SandboxSpec) -> Result<(), RunSandboxError> {
    for name in spec.sysctls.keys() {
        let dotted = name.replace('/', ".");
        let reason = if dotted.split('.').any(str::is_empty) {
            "it is not the name of a parameter"
        } else if dotted.starts_with("net.") {
            match spec.host_network {
                true => "the pod uses the node's network",
                false => continue,
            }
        } else if is_of_ipc(&dotted) {
            match spec.host_ipc {
                true => "the pod uses the node's IPC",
                false => continue,
            }
        } else {
            "no namespace has it for itself"
        };
        return Err(RunSandboxError::Sysctl {
            name: name.clone(),
            reason,
        });
    }
    Ok(())
}

fn is_of_ipc(name: &str) -> bool {
    OF_IPC.iter().any(|known| match known.strip_suffix('.') {
        Some(_) => name.starts_with(known),
        None => name == *known,
    })
}

/// Sets the parameters in the namespaces of the calling thread, which belong to `users` if the pod has its own.
pub(crate) fn apply(spec: &SandboxSpec, users: Option<UserRange>) -> io::Result<()> {
    for (name, value) in &spec.sysctls {
        let write = || fs::write(file(name), value);
        let written = match users {
            // The node's root may set those of any network, but the others only the owner of their namespace.
            Some(users) if !name.starts_with("net") => as_user(users.first, write),
            _ => write(),
        };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}={value}: {error}"));
        written.map_err(named)?;
    }
    Ok(())
}

/// Does something with another effective user of this thread alone. The kernel takes a process that changes its users
/// for one with secrets, and hides it from its owner; this one has changed nothing in the end.
fn as_user(user: u32, action: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let become_user = |user| set_thread_res_uid(Uid::ROOT, user, Uid::ROOT);
    let dumpable = dumpable_behavior()?;
    become_user(Uid::from_raw(user))?;
    let result = action();
    become_user(Uid::ROOT)?;
    set_dumpable_behavior(dumpable)?;
    result
}

/// Parameters whose parts contain dots are written with slashes, as `sysctl(8)` has it.
fn file(name: &str) -> PathBuf {
    let path = match name.contains('/') {
        true => name.to_owned(),
        false => name.replace('.', "/"),
    };
    PathBuf::from("/proc/sys").join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, host_network: bool) -> String {
        let spec = SandboxSpec {
            host_network,
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            ..SandboxSpec::default()
        };
        match check(&spec) {
            Ok(()) => "taken".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn only_parameters_of_the_pods_namespaces_are_taken() {
        assert_eq!(checked("net.ipv4.ip_unprivileged_port_start", false), "taken");
        assert_eq!(checked("kernel.shm_rmid_forced", true), "taken");
        assert_eq!(checked("fs.mqueue.msg_max", false), "taken");
        assert_eq!(
            checked("net.core.somaxconn", true),
            "sysctl \"net.core.somaxconn\" is forbidden: the pod uses the node's network"
        );
        for name in [
            "kernel.hostname",
            "vm.swappiness",
            "kernel.semaphore",
            "net..x",
            "net/../../x",
            "fs.mqueue",
        ] {
            assert!(checked(name, false).contains("is forbidden"), "{name}");
        }
    }

    #[test]
    fn names_with_slashes_keep_their_dots() {
        assert_eq!(
            file("net.core.somaxconn"),
            PathBuf::from("/proc/sys/net/core/somaxconn")
        );
        assert_eq!(
            file("net/ipv4/conf/eth0.100/forwarding"),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.100/forwarding")
        );
    }
}
