//! The first process of a pid namespace that the containers of a pod share.
//!
//! It does nothing but reap whom the containers leave behind. They can look at it (`/proc/1`), so it has nothing: an
//! empty root, no descriptors, no capabilities, nobody's user.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::pivot_root;
use rustix::process::{DumpableBehavior, WaitOptions, set_dumpable_behavior, setsid, wait};

use super::privileges;
use crate::cgroup::Cgroups;
use crate::layout::{Layout, ProcessRecord};
use crate::spec::{Resources, User};
use crate::sys;

/// The user that Kubernetes' own pause image has.
const NOBODY: u32 = 65_535;

/// Starts it; returns its process id.
pub(super) fn start(layout: &Layout, cgroups: &Cgroups, pod_cgroup: &str) -> io::Result<i32> {
    match sys::fork_into_pid_namespace()? {
        Some(pid) => Ok(pid),
        None => {
            let ended = become_nothing(layout, cgroups, pod_cgroup).and_then(|()| reap_forever());
            sys::exit_now(if ended.is_ok() { 0 } else { 1 })
        }
    }
}

fn become_nothing(layout: &Layout, cgroups: &Cgroups, pod_cgroup: &str) -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_name(c"pause")?;
    setsid()?;
    let cgroup = format!("{pod_cgroup}/pause");
    cgroups.create_container(&cgroup, &Resources::default(), false)?;
    cgroups.join(&cgroup)?;
    let null = sys::null_device()?;
    (0..=2).try_for_each(|number| sys::become_standard(&null, number))?;
    enter_empty_root(&layout.run.join("empty"))?;
    sys::close_all_but(&[])?;
    let process = ProcessRecord {
        user: User {
            uid: NOBODY,
            gid: NOBODY,
            additional_gids: Vec::new(),
        },
        no_new_privileges: true,
        ..ProcessRecord::default()
    };
    std::mem::forget(null);
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
