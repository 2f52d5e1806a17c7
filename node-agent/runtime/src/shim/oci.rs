//! Translates a container's spec to the OCI runtime's.

use std::path::Path;

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{
    Capabilities as CapabilitySet, Capability, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, Process, ProcessBuilder, RootBuilder,
    Spec, SpecBuilder, UserBuilder,
};

use crate::capabilities;
use crate::protocol::StartFailure;
use crate::spec::ContainerSpec;

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
    pub(super) rootfs: &'a Path,
    /// The pod's shared memory.
    pub(super) shm: &'a Path,
    /// cgroup v2 without v1.
    pub(super) unified: bool,
    pub(super) host_network: bool,
}

/// The OCI spec; `environment` is complete.
pub(super) fn oci_spec(
    container: &ContainerSpec,
    environment: Vec<String>,
    pod: &Surroundings<'_>,
) -> Result<Spec, StartFailure> {
    let names = capabilities::granted(
        &container.capabilities,
        capabilities::bounding_set(),
        !pod.unified,
    )
    .map_err(|reason| StartFailure::BadSpec { reason })?;
    build(container, environment, &names, pod).map_err(|error| StartFailure::BadSpec {
        reason: error.to_string(),
    })
}

fn build(
    container: &ContainerSpec,
    environment: Vec<String>,
    capabilities: &[String],
    pod: &Surroundings<'_>,
) -> Result<Spec, OciSpecError> {
    let root = RootBuilder::default()
        .path(pod.rootfs)
        .readonly(container.read_only_rootfs)
        .build()?;
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .mounts(mounts(container, pod)?)
        .process(process(container, environment, capabilities)?)
        .linux(linux(pod)?)
        .build()?;
    // The pod's name is set already, and its containers must not change it.
    spec.set_hostname(None);
    Ok(spec)
}

fn process(
    container: &ContainerSpec,
    environment: Vec<String>,
    capabilities: &[String],
) -> Result<Process, OciSpecError> {
    let user = UserBuilder::default()
        .uid(container.user.uid)
        .gid(container.user.gid)
        .additional_gids(container.user.additional_gids.clone())
        .build()?;
    let names: Vec<_> = capabilities
        .iter()
        .map(|name| serde_json::Value::from(name.as_str()))
        .collect();
    let granted = names
        .into_iter()
        .map(|name| serde_json::from_value::<Capability>(name).map_err(OciSpecError::SerDe))
        .collect::<Result<CapabilitySet, _>>()?;
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(granted.clone())
        .effective(granted.clone())
        .permitted(granted)
        .inheritable(CapabilitySet::new())
        .ambient(CapabilitySet::new())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(container.args.clone())
        .env(environment)
        .cwd(super::rootfs::working_directory(container))
        .capabilities(sets)
        .build()?;
    // Unset, not false: false together with a seccomp filter fails in libcontainer.
    process.set_no_new_privileges(container.no_new_privileges.then_some(true));
    process.set_rlimits(None);
    Ok(process)
}

fn linux(pod: &Surroundings<'_>) -> Result<Linux, OciSpecError> {
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(pod)?)
        .masked_paths(MASKED_PATHS.map(str::to_owned))
        .readonly_paths(READ_ONLY_PATHS.map(str::to_owned))
        .build()?;
    // The process that calls libcontainer is in the container's cgroup already.
    linux.set_resources(None);
    // Nothing on the node may follow a mount made in the container.
    linux.set_rootfs_propagation(Some("private".to_owned()));
    Ok(linux)
}

/// The shim lives in the pod's namespaces, so `/proc/self/ns` names them.
fn namespaces(pod: &Surroundings<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let joined: &[_] = match pod.host_network {
        true => &[(Ipc, "/proc/self/ns/ipc")],
        false => &[
            (Network, "/proc/self/ns/net"),
            (Ipc, "/proc/self/ns/ipc"),
            (Uts, "/proc/self/ns/uts"),
        ],
    };
    let own: &[_] = if pod.unified {
        &[Pid, Mount, Cgroup]
    } else {
        &[Pid, Mount]
    };
    let joined = joined
        .iter()
        .map(|(kind, path)| LinuxNamespaceBuilder::default().typ(*kind).path(path).build());
    let own = own
        .iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(*kind).build());
    joined.chain(own).collect()
}

fn mounts(container: &ContainerSpec, pod: &Surroundings<'_>) -> Result<Vec<Mount>, OciSpecError> {
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
            pod.shm,
            &["rbind", "nosuid", "noexec", "nodev"],
        )?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
    ];
    // A v1 mount could not be made read-only: a container would raise its own limits.
    if pod.unified {
        mounts.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "ro"],
        )?);
    }
    for wanted in &container.mounts {
        let access = if wanted.read_only { "ro" } else { "rw" };
        mounts.push(mount(
            &wanted.destination,
            "bind",
            &wanted.source,
            &["rbind", "rprivate", access],
        )?);
    }
    Ok(mounts)
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
