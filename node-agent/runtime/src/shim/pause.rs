//! The first process of a pid namespace that the containers of a pod share.
//!
//! It does nothing but reap whom the containers leave behind. They can look at it (`/proc/1`), so it has nothing: an
//! empty root, no descriptors, no capabilities, nobody's user.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, pipe2, pivot_root};
use rustix::process::{DumpableBehavior, WaitOptions, set_dumpable_behavior, setsid, wait};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::mapping::Users;
use super::privileges;
use crate::cgroup::Cgroups;
use crate::layout::{Layout, ProcessRecord};
use crate::spec::{Resources, User};
use crate::sys;

/// The user that Kubernetes' own pause image has.
const NOBODY: u32 = 65_535;

/// Starts it; returns its process id.
pub(super) fn start(
    layout: &Layout,
    cgroups: &Cgroups,
    pod_cgroup: &str,
    users: Option<&Users>,
) -> io::Result<i32> {
    if let Some(users) = users {
        return start_for(users, |kept| leave_the_node(layout, cgroups, pod_cgroup, kept));
    }
    match sys::fork_into_pid_namespace(0)? {
        Some(pid) => Ok(pid),
        None => live(|| leave_the_node(layout, cgroups, pod_cgroup, &[])),
    }
}

/// Starts it in a pid namespace that belongs to the pod's user namespace: a process between, which has left the node
/// and entered that one, makes it.
fn start_for(users: &Users, leave: impl FnOnce(&[RawFd]) -> io::Result<()>) -> io::Result<i32> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    if let ForkResult::Child = sys::fork()? {
        let namespace = users.namespace_fd();
        let made = leave(&[writer.as_raw_fd(), namespace.as_raw_fd()])
            .and_then(|()| {
                Ok(move_into_link_name_space(
                    namespace,
                    Some(LinkNameSpaceType::User),
                )?)
            })
            .and_then(|()| sys::fork_into_pid_namespace(libc::CLONE_PARENT));
        let told = match made {
            Ok(None) => live(|| sys::close_all_but(&[])),
            Ok(Some(pid)) => File::from(writer).write_all(&pid.to_le_bytes()),
            Err(error) => Err(error),
        };
        sys::exit_now(if told.is_ok() { 0 } else { 1 });
    }
    drop(writer);
    let mut pid = [0; 4];
    File::from(reader).read_exact(&mut pid)?;
    Ok(i32::from_le_bytes(pid))
}

fn live(begin: impl FnOnce() -> io::Result<()>) -> ! {
    let ended = begin()
        .and_then(|()| become_nobody())
        .and_then(|()| reap_forever());
    sys::exit_now(if ended.is_ok() { 0 } else { 1 })
}

fn leave_the_node(layout: &Layout, cgroups: &Cgroups, pod_cgroup: &str, kept: &[RawFd]) -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_name(c"pause")?;
    let cgroup = format!("{pod_cgroup}/pause");
    cgroups.create_container(&cgroup, &Resources::default(), false)?;
    cgroups.join(&cgroup)?;
    let null = sys::null_device()?;
    (0..=2).try_for_each(|number| sys::become_standard(&null, number))?;
    std::mem::forget(null);
    enter_empty_root(&layout.run.join("empty"))?;
    sys::close_all_but(kept)
}

fn become_nobody() -> io::Result<()> {
    setsid()?;
    let process = ProcessRecord {
        user: User {
            uid: NOBODY,
            gid: NOBODY,
            additional_gids: Vec::new(),
        },
        no_new_privileges: true,
        ..ProcessRecord::default()
    };
    privileges::become_user(&process.user)?;
    privileges::drop_privileges(&process, None)
}

fn enter_empty_root(folder: &Path) -> io::Result<()> {
    let none = None::<&str>;
    fs::create_dir_all(folder)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("none"),
        folder,
        Some("tmpfs"),
        flags,
        Some("size=4k,mode=555"),
    )?;
    std::env::set_current_dir(folder)?;
    pivot_root(".", ".")?;
    // The old root lies on the new one now.
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}

fn reap_forever() -> io::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    sys::give_back_code();
    loop {
        mask.wait()?;
        // An error is ECHILD: no child is left.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}
