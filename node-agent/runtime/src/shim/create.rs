//! Creates and starts one container with libcontainer. Runs in a fork of the shim.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use super::executor::ReportingExecutor;
use super::mapping::{self, Users};
use super::oci::{Surroundings, oci_spec};
use super::report::{Report, send};
use super::{devices, rootfs, staging, sub_path};
use crate::capabilities;
use crate::cgroup::Cgroups;
use crate::layout::{ContainerPaths, Layout, ProcessRecord, SandboxRecord, write_json};
use crate::protocol::StartFailure;
use crate::seccomp::{self, Filters};
use crate::spec::{ContainerSpec, Seccomp, User};
use crate::sys;

/// Everything the fork needs.
pub(super) struct Creation<'a> {
    pub(super) layout: &'a Layout,
    pub(super) sandbox: &'a SandboxRecord,
    pub(super) cgroups: &'a Cgroups,
    pub(super) container: &'a ContainerSpec,
    pub(super) streams: Streams,
    /// The process whose pid namespace it joins: the first of the pod's, if containers share one, or its target's.
    pub(super) neighbour: Option<i32>,
    /// The node's mount namespace.
    pub(super) node_mounts: &'a OwnedFd,
    /// The pod's users, if they are not the node's.
    pub(super) users: Option<&'a Users>,
}

/// What the program gets as its standard streams.
pub(super) enum Streams {
    Pipes {
        /// Without one it gets `/dev/null`.
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A terminal, whose master goes to the container's console socket.
    Terminal,
}

/// The cgroup of a container.
pub(super) fn container_cgroup(sandbox: &SandboxRecord, id: &str) -> String {
    format!("{}/{id}", sandbox.cgroup)
}

/// Creates and starts the container and reports it.
pub(super) fn run(creation: Creation<'_>, report: File) {
    let report = Arc::new(report);
    let news = match create(creation, &report) {
        Ok(()) => return,
        Err(failure) => Report::Failed(failure),
    };
    // Without a shim there is nobody to tell.
    send(&report, &news).ok();
}

fn create(creation: Creation<'_>, report: &Arc<File>) -> Result<(), StartFailure> {
    let paths = creation.layout.container(&creation.container.id);
    let resolved = sub_path::resolve(creation.container, &paths)?;
    let creation = Creation {
        container: &resolved,
        ..creation
    };
    let Creation {
        layout,
        sandbox,
        cgroups,
        container,
        ..
    } = creation;
    let failed = |error: &dyn Error| StartFailure::Create {
        reason: flotilla_report::report(error),
    };
    std::fs::create_dir_all(&paths.bundle).map_err(|error| failed(&error))?;
    let (record, filters) = process_record(&creation, &paths)?;
    devices::check_apparmor(container)?;
    let neighbour = creation.neighbour.map(pid_namespace_of).transpose()?;
    let surroundings = surroundings(&creation, neighbour.as_ref(), &paths)?;
    record.adjust_oom_score();
    oci_spec(container, &record, &surroundings)?
        .save(paths.config())
        .map_err(|error| failed(&error))?;
    write_json(&paths.process(), &record).map_err(|error| failed(&error))?;
    let cgroup = container_cgroup(sandbox, &container.id);
    cgroups
        .create_container(&cgroup, &container.resources, container.privileged)
        .and_then(|()| cgroups.join(&cgroup))
        .map_err(|error| StartFailure::Create {
            reason: format!("cannot set up the cgroup: {error}"),
        })?;
    let builder = ContainerBuilder::new(container.id.clone(), SyscallType::default())
        .with_root_path(layout.oci_root())
        .map_err(|error| failed(&error))?
        .with_executor(ReportingExecutor {
            report: Arc::clone(report),
            process: Arc::new(record),
            filters: filters.map(Arc::new),
        });
    if let Some(users) = creation.users {
        give_streams(&creation.streams, users, &container.user).map_err(|error| failed(&error))?;
    }
    let mut created = with_streams(builder, creation.streams, &paths)
        .map_err(|error| failed(&error))?
        .as_init(&paths.bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()
        .map_err(|error| failed(&error))?;
    let pid = created.pid().map(|pid| pid.as_raw()).unwrap_or_default();
    // Before the start: the program may end at once, and its exit must find its container.
    send(report, &Report::Started { pid }).map_err(|error| failed(&error))?;
    created.start().map_err(|error| failed(&error))?;
    cgroups
        .complete_container(&cgroup, &container.resources)
        .map_err(|error| StartFailure::Create {
            reason: format!("cannot set the limits: {error}"),
        })
}

fn surroundings<'a>(
    creation: &Creation<'a>,
    neighbour: Option<&OwnedFd>,
    paths: &ContainerPaths,
) -> Result<Surroundings<'a>, StartFailure> {
    let surroundings = Surroundings {
        rootfs: paths.rootfs(),
        shm: creation.layout.shm(),
        unified: creation.cgroups.is_unified(),
        sandbox: &creation.sandbox.spec,
        pid_namespace: neighbour.map(mapping::name_of),
        user_namespace: creation.users.map(Users::namespace),
        mounts: staging::stage(creation.container, paths, creation.node_mounts)?,
    };
    match creation.users {
        Some(users) => on_stage(surroundings, users, paths),
        None => Ok(surroundings),
    }
}

/// What a process that is nobody on the node can get to.
fn on_stage<'a>(
    surroundings: Surroundings<'a>,
    users: &Users,
    paths: &ContainerPaths,
) -> Result<Surroundings<'a>, StartFailure> {
    Ok(Surroundings {
        rootfs: mapping::show(&surroundings.rootfs, "root", paths)?,
        shm: mapping::show(&surroundings.shm, "shm", paths)?,
        mounts: users.show_mounts(surroundings.mounts, paths)?,
        ..surroundings
    })
}

/// Opened here: the process may be hidden from the users that enter it.
fn pid_namespace_of(pid: i32) -> Result<OwnedFd, StartFailure> {
    let opened = File::open(format!("/proc/{pid}/ns/pid")).map(OwnedFd::from);
    opened.map_err(|error| StartFailure::Create {
        reason: format!("cannot join the processes of process {pid}: {error}"),
    })
}

fn give_streams(streams: &Streams, users: &Users, user: &User) -> io::Result<()> {
    match streams {
        Streams::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let all = stdin.iter().chain([stdout, stderr]);
            all.into_iter().try_for_each(|stream| users.give(stream, user))
        }
        Streams::Terminal => Ok(()),
    }
}

fn process_record(
    creation: &Creation<'_>,
    paths: &ContainerPaths,
) -> Result<(ProcessRecord, Option<Filters>), StartFailure> {
    let container = creation.container;
    let capabilities = capabilities::granted(
        &container.capabilities,
        capabilities::bounding_set(),
        !creation.cgroups.is_unified(),
    )
    .map_err(|reason| StartFailure::BadSpec { reason })?;
    let wanted = match container.privileged {
        true => &Seccomp::Unconfined,
        false => &container.seccomp,
    };
    let filters = seccomp::filters(wanted, capabilities, &creation.sandbox.seccomp).map_err(|error| {
        StartFailure::BadSpec {
            reason: error.to_string(),
        }
    })?;
    if let Some(filters) = &filters {
        std::fs::write(paths.filters(), filters.encode()).map_err(|error| StartFailure::Create {
            reason: format!("cannot keep the seccomp filter: {error}"),
        })?;
    }
    let record = ProcessRecord {
        env: rootfs::prepare(container, paths, creation.users)?,
        cwd: rootfs::working_directory(container),
        user: container.user.clone(),
        capabilities,
        no_new_privileges: container.no_new_privileges,
        confined: filters.is_some(),
        oom_score_adj: container.oom_score_adj,
    };
    Ok((record, filters))
}

fn with_streams(
    builder: ContainerBuilder,
    streams: Streams,
    paths: &ContainerPaths,
) -> io::Result<ContainerBuilder> {
    Ok(match streams {
        Streams::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let stdin = match stdin {
                Some(stdin) => stdin,
                None => OwnedFd::from(sys::null_device()?),
            };
            builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr)
        }
        Streams::Terminal => {
            builder.with_console_socket(Some(paths.bundle.join(ContainerPaths::console_name())))
        }
    })
}
