//! Translates a container's spec to the OCI runtime's.

use std::path::{Path, PathBuf};

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{
    Capabilities as CapabilitySet, Capability, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, Process, ProcessBuilder, RootBuilder,
    Spec, SpecBuilder, UserBuilder,
};

use super::devices;
use crate::capabilities;
use crate::layout::ProcessRecord;
use crate::protocol::StartFailure;
use crate::spec::{ContainerSpec, MountKind, PidNamespace, Propagation, SandboxSpec};

const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the pod adds to a container's spec.
pub(super) struct Surroundings<'a> {
    pub(super) rootfs: PathBuf,
    /// The pod's shared memory.
    pub(super) shm: PathBuf,
    /// cgroup v2 without v1.
    pub(super) unified: bool,
    pub(super) sandbox: &'a SandboxSpec,
    /// A pid namespace that it joins.
    pub(super) pid_namespace: Option<PathBuf>,
    /// The pod's user namespace, if it has one.
    pub(super) user_namespace: Option<PathBuf>,
    /// The container's own mounts, with sources of the right propagation.
    pub(super) mounts: Vec<crate::spec::Mount>,
}

/// The OCI spec.
///
/// It keeps all capabilities: the executor, which is ours, gives up those that `record` lacks at the last moment.
pub(super) fn oci_spec(
    container: &ContainerSpec,
    record: &ProcessRecord,
    pod: &Surroundings<'_>,
) -> Result<Spec, StartFailure> {
    build(container, record, pod).map_err(|error| StartFailure::BadSpec {
        reason: error.to_string(),
    })
}

fn build(
    container: &ContainerSpec,
    record: &ProcessRecord,
    pod: &Surroundings<'_>,
) -> Result<Spec, OciSpecError> {
    let root = RootBuilder::default()
        .path(&*pod.rootfs)
        .readonly(container.read_only_rootfs)
        .build()?;
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .mounts(mounts(container, pod)?)
        .process(process(container, record)?)
        .linux(linux(container, pod)?)
        .build()?;
    // The pod's name is set already, and its containers must not change it.
    spec.set_hostname(None);
    Ok(spec)
}

fn process(container: &ContainerSpec, record: &ProcessRecord) -> Result<Process, OciSpecError> {
    let user = UserBuilder::default()
        .uid(record.user.uid)
        .gid(record.user.gid)
        .additional_gids(record.user.additional_gids.clone())
        .build()?;
    let granted = capabilities::names(capabilities::bounding_set())
        .into_iter()
        .map(|name| serde_json::from_value::<Capability>(name.into()).map_err(OciSpecError::SerDe))
        .collect::<Result<CapabilitySet, _>>()?;
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(granted.clone())
        .effective(granted.clone())
        .permitted(granted)
        .inheritable(CapabilitySet::new())
        .ambient(CapabilitySet::new())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(container.terminal)
        .user(user)
        .args(container.args.clone())
        .env(record.env.clone())
        .cwd(&record.cwd)
        .capabilities(sets)
        .build()?;
    process.set_no_new_privileges(None);
    process.set_apparmor_profile(container.apparmor_profile.clone());
    process.set_rlimits(None);
    Ok(process)
}

fn linux(container: &ContainerSpec, pod: &Surroundings<'_>) -> Result<Linux, OciSpecError> {
    let unmasked = container.privileged || container.unmasked_proc;
    let paths = |paths: &[&str]| match unmasked {
        true => Vec::new(),
        false => paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>(),
    };
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(pod)?)
        .masked_paths(paths(&MASKED_PATHS))
        .readonly_paths(paths(&READ_ONLY_PATHS))
        .build()?;
    if container.privileged {
        linux.set_devices(Some(devices::all()?));
    }
    // The process that calls libcontainer is in the container's cgroup already.
    linux.set_resources(None);
    linux.set_rootfs_propagation(Some(root_propagation(container).to_owned()));
    Ok(linux)
}

/// How the root passes mounts on: only as far as one of the container's mounts is to. Nothing on the node otherwise
/// follows a mount made in the container.
fn root_propagation(container: &ContainerSpec) -> &'static str {
    let wants = |wanted| container.mounts.iter().any(|mount| mount.propagation == wanted);
    if wants(Propagation::Bidirectional) {
        "shared"
    } else if wants(Propagation::HostToContainer) {
        "slave"
    } else {
        "private"
    }
}

/// The shim lives in the pod's namespaces, so `/proc/self/ns` names them.
fn namespaces(pod: &Surroundings<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let joined = |kind, path: &dyn AsRef<Path>| {
        LinuxNamespaceBuilder::default()
            .typ(kind)
            .path(path.as_ref())
            .build()
    };
    let own = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut namespaces = vec![own(Mount)?];
    if !pod.sandbox.host_network {
        namespaces.push(joined(Network, &"/proc/self/ns/net")?);
        namespaces.push(joined(Uts, &"/proc/self/ns/uts")?);
    }
    if !pod.sandbox.host_ipc {
        namespaces.push(joined(Ipc, &"/proc/self/ns/ipc")?);
    }
    if pod.unified {
        namespaces.push(own(Cgroup)?);
    }
    match (pod.sandbox.pids, &pod.pid_namespace) {
        (PidNamespace::Node, _) => {}
        (_, Some(path)) => namespaces.push(joined(Pid, path)?),
        _ => namespaces.push(own(Pid)?),
    }
    if let Some(path) = &pod.user_namespace {
        namespaces.push(joined(User, path)?);
    }
    Ok(namespaces)
}

fn mounts(container: &ContainerSpec, pod: &Surroundings<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let access = if container.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        )?,
        mount(
            "/dev/shm",
            "bind",
            &pod.shm,
            &["rbind", "nosuid", "noexec", "nodev"],
        )?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])?,
    ];
    // A v1 mount could not be made read-only: a container would raise its own limits.
    if pod.unified {
        mounts.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", access],
        )?);
    }
    for wanted in &pod.mounts {
        mounts.push(wanted_mount(wanted)?);
    }
    Ok(mounts)
}

fn wanted_mount(wanted: &crate::spec::Mount) -> Result<Mount, OciSpecError> {
    let propagation = match wanted.propagation {
        Propagation::None => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = match (wanted.read_only, wanted.recursive_read_only) {
        (false, _) => "rw",
        (true, false) => "ro",
        (true, true) => "rro",
    };
    let (kind, source, mut options) = match wanted.kind {
        MountKind::Bind => (
            "bind",
            wanted.source.as_path(),
            vec!["rbind", propagation, access],
        ),
        MountKind::Tmpfs => ("tmpfs", Path::new("tmpfs"), vec![access]),
    };
    options.extend(wanted.options.iter().map(String::as_str));
    mount(&wanted.destination, kind, source, &options)
}

fn mount(
    destination: impl AsRef<Path>,
    kind: &str,
    source: impl AsRef<Path>,
    options: &[&str],
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination.as_ref())
        .typ(kind)
        .source(source.as_ref())
        .options(
            options
                .iter()
                .map(|option| (*option).to_owned())
                .collect::<Vec<_>>(),
        )
        .build()
}
