//! Becomes another program inside a node.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::cgroup::Cgroup;
use crate::error::At;
use crate::node::has_namespaces;
use crate::place::{need_root, open_pin};
use crate::state::State;
use crate::{LocalError, Place};

/// Joins a cgroup, enters the pinned namespaces in a folder, and becomes the program in `command`.
///
/// *Assumes* a process with one thread: the kernel lets no other enter a mount namespace.
pub fn enter(pins: &Path, cgroup: &str, command: &[OsString]) -> Result<Infallible, LocalError> {
    Cgroup::new(cgroup).join()?;
    let namespaces = [
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    // All are opened before any is entered: the folder is not seen from inside.
    let opened = namespaces.map(|(kind, flag)| (open_pin(pins, kind), flag));
    for (file, flag) in opened {
        let file: OwnedFd = file.at("open the namespaces in", pins)?;
        setns(&file, flag).at("enter the namespaces in", pins)?;
    }
    let (program, arguments) = command
        .split_first()
        .unwrap_or_else(|| unreachable!("the flags require a command"));
    let error = Command::new(program).args(arguments).exec();
    Err(error).at("run", Path::new(program))
}

/// Becomes `command` inside a node of the cluster.
pub fn exec(place: &Place, node: &str, command: &[OsString]) -> Result<Infallible, LocalError> {
    need_root()?;
    let state = State::read(place)?;
    let name = &state.node(node)?.name;
    if !has_namespaces(place, name) {
        return Err(LocalError::NotRunning { node: name.clone() });
    }
    let cgroup = place.node_cgroup(name).child("exec");
    cgroup.create()?;
    enter(&place.pins(name), cgroup.path(), command)
}
