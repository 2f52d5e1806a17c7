//! Creates and starts one container with libcontainer. Runs in a fork of the shim.

use std::error::Error;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use super::executor::ReportingExecutor;
use super::oci::{Surroundings, oci_spec};
use super::report::{Report, send};
use super::rootfs;
use crate::cgroup::Cgroups;
use crate::layout::{Layout, SandboxRecord};
use crate::protocol::StartFailure;
use crate::spec::ContainerSpec;
use crate::sys;

/// Everything the fork needs.
pub(super) struct Creation<'a> {
    pub(super) layout: &'a Layout,
    pub(super) sandbox: &'a SandboxRecord,
    pub(super) cgroups: &'a Cgroups,
    pub(super) container: &'a ContainerSpec,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
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
    let Creation {
        layout,
        sandbox,
        cgroups,
        container,
        ..
    } = creation;
    let paths = layout.container(&container.id);
    let failed = |error: &dyn Error| StartFailure::Create {
        reason: flotilla_report::report(error),
    };
    std::fs::create_dir_all(&paths.bundle).map_err(|error| failed(&error))?;
    let environment = rootfs::prepare(container, &paths)?;
    let surroundings = Surroundings {
        rootfs: &paths.rootfs(),
        shm: &layout.shm(),
        unified: cgroups.is_unified(),
        host_network: sandbox.spec.host_network,
    };
    oci_spec(container, environment, &surroundings)?
        .save(paths.config())
        .map_err(|error| failed(&error))?;
    let cgroup = container_cgroup(sandbox, &container.id);
    cgroups
        .create_container(&cgroup, &container.resources)
        .and_then(|()| cgroups.join(&cgroup))
        .map_err(|error| StartFailure::Create {
            reason: format!("cannot set up the cgroup: {error}"),
        })?;
    let stdin = sys::null_device().map_err(|error| failed(&error))?;
    let mut created = ContainerBuilder::new(container.id.clone(), SyscallType::default())
        .with_root_path(layout.oci_root())
        .map_err(|error| failed(&error))?
        .with_stdin(OwnedFd::from(stdin))
        .with_stdout(creation.stdout)
        .with_stderr(creation.stderr)
        .with_executor(ReportingExecutor {
            report: Arc::clone(report),
        })
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
