//! Runs a further program in a container. Runs in a fork of the shim.
//!
//! Not libcontainer's: that applies no seccomp filter and no resource limits, and ignores user namespaces. The fork
//! enters the container's cgroup and namespaces and forks once more, for only children enter a pid namespace; the
//! child is the shim's, so that the shim learns its exit code.
//!
//! A process of the container might look at this one before the program is executed: it holds no descriptor but
//! those that the program gets and the one to report over, and cannot be traced.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, chdir, getcwd, pidfd_open, set_dumpable_behavior, setsid,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::mapping::Users;
use super::report::{Report, send};
use super::{executor, privileges, terminal};
use crate::cgroup::Cgroups;
use crate::descriptors;
use crate::exec::ExecSpec;
use crate::layout::{ContainerPaths, ProcessRecord, read_json};
use crate::protocol::StartFailure;
use crate::seccomp::Filters;
use crate::sys;

/// Everything the fork needs.
pub(super) struct Execution<'a> {
    pub(super) paths: &'a ContainerPaths,
    pub(super) cgroups: &'a Cgroups,
    /// The container's.
    pub(super) cgroup: &'a str,
    /// The container's init, which the shim has not reaped yet.
    pub(super) pid: i32,
    /// The pod's users, if they are not the node's.
    pub(super) users: Option<&'a Users>,
    pub(super) spec: &'a ExecSpec,
    /// The program's ends of its pipes, by number; without one it gets `/dev/null`.
    pub(super) streams: [Option<OwnedFd>; 3],
    /// Where the master of its terminal goes.
    pub(super) console: Option<OwnedFd>,
}

/// Executes the program, or reports why not: the pipe closes silently when it succeeds.
pub(super) fn run(execution: Execution<'_>, report: &File) {
    if let Err(failure) = enter(execution, report) {
        // Without a shim there is nobody to tell.
        send(report, &Report::Failed(failure)).ok();
    }
}

fn enter(execution: Execution<'_>, report: &File) -> Result<(), StartFailure> {
    let Execution {
        paths,
        cgroups,
        cgroup,
        pid,
        users,
        spec,
        streams,
        console,
    } = execution;
    let process: ProcessRecord =
        read_json(&paths.process()).map_err(|error| failed("read how its programs run", &error))?;
    let filters = read_filters(&process, paths).map_err(|error| failed("read its seccomp filter", &error))?;
    let target = Pid::from_raw(pid)
        .ok_or_else(|| failed("find its process", &rustix::io::Errno::SRCH))
        .and_then(|pid| {
            pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| failed("find its process", &errno))
        })?;
    cgroups
        .join(cgroup)
        .map_err(|error| failed("join its cgroup", &error))?;
    process.adjust_oom_score();
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| failed("hide from its processes", &errno))?;
    if let Some(users) = users {
        let mut all = streams.iter().flatten();
        all.try_for_each(|stream| users.give(stream, &process.user))
            .map_err(|error| failed("give the user its streams", &error))?;
    }
    connect_streams(streams).map_err(|error| failed("connect the streams", &error))?;
    let mut kept = vec![report.as_raw_fd(), target.as_raw_fd()];
    kept.extend(console.as_ref().map(AsRawFd::as_raw_fd));
    sys::close_all_but(&kept).map_err(|error| failed("close the shim's descriptors", &error))?;
    move_into_thread_name_spaces(target.as_fd(), namespaces(users.is_some()))
        .map_err(|errno| failed("enter its namespaces", &errno))?;
    drop(target);
    match sys::fork_sibling().map_err(|error| failed("fork", &error))? {
        Some(pid) => send(report, &Report::Started { pid }).map_err(|error| failed("report", &error)),
        None => Err(become_program(spec, &process, filters.as_ref(), console.as_ref())),
    }
}

fn failed(what: &str, error: &dyn std::error::Error) -> StartFailure {
    StartFailure::Create {
        reason: format!("cannot {what}: {error}"),
    }
}

fn connect_streams(streams: [Option<OwnedFd>; 3]) -> io::Result<()> {
    let null = sys::null_device()?;
    for (number, stream) in (0..).zip(streams) {
        match stream {
            Some(stream) => sys::become_standard(stream, number)?,
            None => sys::become_standard(&null, number)?,
        }
    }
    Ok(())
}

/// All that a container may have of its own; those that it shares with the shim are entered once more.
fn namespaces(has_users: bool) -> ThreadNameSpaceType {
    let users = match has_users {
        true => ThreadNameSpaceType::USER,
        // Who is in it already cannot enter it.
        false => ThreadNameSpaceType::empty(),
    };
    users
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP
}

fn read_filters(process: &ProcessRecord, paths: &ContainerPaths) -> io::Result<Option<Filters>> {
    if !process.confined {
        return Ok(None);
    }
    match Filters::decode(&std::fs::read(paths.filters())?) {
        Some(filters) => Ok(Some(filters)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Returns only when it fails.
fn become_program(
    spec: &ExecSpec,
    process: &ProcessRecord,
    filters: Option<&Filters>,
    console: Option<&OwnedFd>,
) -> StartFailure {
    let started = start_session(spec, console)
        .map_err(|error| failed("give it a terminal", &error))
        .and_then(|()| enter_folder(&process.cwd))
        .and_then(|()| {
            privileges::become_user(&process.user).map_err(|error| failed("take its user", &error))
        });
    match started {
        Ok(()) => executor::become_program(&spec.args, process, filters),
        Err(failure) => failure,
    }
}

fn start_session(spec: &ExecSpec, console: Option<&OwnedFd>) -> io::Result<()> {
    let Some(console) = console else {
        setsid()?;
        return Ok(());
    };
    let terminal = terminal::open(spec.size)?;
    descriptors::send(console, b"t", &[terminal.master])?;
    terminal::take(&terminal.slave)
}

/// Enters the working directory, which must not lead out of the container's root (CVE-2024-21626).
fn enter_folder(cwd: &str) -> Result<(), StartFailure> {
    let bad = |reason: String| StartFailure::BadWorkingDirectory {
        cwd: cwd.to_owned(),
        reason,
    };
    chdir(cwd).map_err(|errno| bad(io::Error::from(errno).to_string()))?;
    match getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(bad("it is not in the container".to_owned())),
    }
}
