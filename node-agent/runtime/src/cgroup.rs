//! The cgroups of pods and containers, in v1 hierarchies or the v2 tree.
//!
//! libcontainer has no part in this. Its way into a cgroup, `cgroup.procs`, makes every start wait 10 to 20 ms
//! for a grace period of the kernel. On v1 a single-threaded process gets into one through `tasks` without
//! that wait, and its children are born there.

mod detect;
mod limits;
mod qos;
mod usage;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::detect::{Hierarchy, cgroup_mounts, from_mountinfo};
use self::limits::Setting;
pub(crate) use self::qos::QosTree;
use crate::spec::Resources;

pub use self::usage::Usage;

/// How often and after which pause a cgroup whose processes are still dying is tried again.
const REMOVE_ATTEMPTS: u32 = 1000;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// Where systems mount cgroups.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The machine's cgroup trees that pods use.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    unified: bool,
    hierarchies: Vec<Hierarchy>,
    /// The roots, once they can only be reached through these.
    pins: Arc<Vec<OwnedFd>>,
}

impl Cgroups {
    /// Looks at what is mounted.
    pub(crate) fn detect() -> io::Result<Cgroups> {
        let (unified, hierarchies) = from_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?);
        Ok(Cgroups {
            unified,
            hierarchies,
            pins: Arc::default(),
        })
    }

    /// Unmounts all cgroups from the calling process's mount namespace; the result still reaches them.
    ///
    /// Containers then have fewer mounts to copy, and libcontainer finds nothing to do.
    pub(crate) fn hide(mut self) -> io::Result<Cgroups> {
        use rustix::fs::{CWD, Mode, OFlags, openat};
        let mut pins = Vec::new();
        for hierarchy in &mut self.hierarchies {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let pin = openat(CWD, &hierarchy.mount, flags, Mode::empty())?;
            // Forks have the same descriptors under the same numbers.
            hierarchy.mount = PathBuf::from(format!("/proc/self/fd/{}", pin.as_raw_fd()));
            pins.push(pin);
        }
        // Takes all that is mounted below with it: each unmounting waits for the kernel. What is elsewhere comes after.
        umount2(CGROUP_ROOT, MntFlags::MNT_DETACH).ok();
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
        let mounts: Vec<_> = cgroup_mounts(&mountinfo).map(|(_, mount, _)| mount).collect();
        // Later ones may lie on earlier ones.
        for mount in mounts.into_iter().rev() {
            umount2(mount, MntFlags::MNT_DETACH)?;
        }
        self.pins = Arc::new(pins);
        Ok(self)
    }

    /// Whether this machine has nothing but cgroup v2.
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    /// The folder of `cgroup` in each tree.
    fn folders(&self, cgroup: &str) -> impl Iterator<Item = PathBuf> {
        self.hierarchies
            .iter()
            .map(move |hierarchy| hierarchy.mount.join(cgroup.trim_start_matches('/')))
    }

    /// The folder of `cgroup` where `controller` is.
    fn folder(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        self.hierarchies
            .iter()
            .find(|hierarchy| self.unified || hierarchy.controllers.iter().any(|name| name == controller))
            .map(|hierarchy| hierarchy.mount.join(cgroup.trim_start_matches('/')))
    }

    /// Makes a pod's cgroup with its limits.
    pub(crate) fn create_pod(&self, cgroup: &str, resources: &Resources) -> io::Result<()> {
        self.create(cgroup)?;
        if self.unified {
            self.folders(cgroup)
                .for_each(|folder| enable_controllers(&folder));
        }
        // Memory limits mean memory: where there is swap, pods do not use it. Absent without swap accounting.
        let (file, value) = if self.unified {
            ("memory.swap.max", "0")
        } else {
            ("memory.swappiness", "0")
        };
        if let Some(folder) = self.folder("memory", cgroup) {
            fs::write(folder.join(file), value).ok();
        }
        self.set(cgroup, &limits::early(self.unified, resources))?;
        self.set(cgroup, &limits::late(self.unified, resources))
    }

    /// Makes the cgroup under which all pods are, and limits what they may use together.
    pub(crate) fn limit_all(&self, cgroup: &str, resources: &Resources) -> io::Result<()> {
        self.create(cgroup)?;
        self.set(cgroup, &limits::early(self.unified, resources))
    }

    /// Makes a container's cgroup with the limits that its creation can live with.
    pub(crate) fn create_container(
        &self,
        cgroup: &str,
        resources: &Resources,
        all_devices: bool,
    ) -> io::Result<()> {
        self.create(cgroup)?;
        self.set(cgroup, &limits::devices(self.unified, all_devices))?;
        if self.unified
            && let Some(folder) = self.folder("memory", cgroup)
        {
            // A container that has lost one process for want of memory ends whole, as kubelet has it on v2.
            fs::write(folder.join("memory.oom.group"), "1").ok();
        }
        self.set(cgroup, &limits::early(self.unified, resources))
    }

    /// Changes the limits of a pod or container that runs.
    pub(crate) fn update(&self, cgroup: &str, resources: &Resources) -> io::Result<()> {
        self.set(cgroup, &limits::update(self.unified, resources))
    }

    /// The v2 tree at a folder.
    #[cfg(test)]
    pub(crate) fn unified_at(root: &Path) -> Cgroups {
        Cgroups {
            unified: true,
            hierarchies: vec![Hierarchy {
                mount: root.to_owned(),
                controllers: Vec::new(),
            }],
            pins: Arc::default(),
        }
    }

    /// Sets the other limits of a container.
    pub(crate) fn complete_container(&self, cgroup: &str, resources: &Resources) -> io::Result<()> {
        self.set(cgroup, &limits::late(self.unified, resources))
    }

    fn create(&self, cgroup: &str) -> io::Result<()> {
        self.hierarchies
            .iter()
            .try_for_each(|hierarchy| self.create_in(hierarchy, cgroup))
    }

    fn create_in(&self, hierarchy: &Hierarchy, cgroup: &str) -> io::Result<()> {
        let mut folder = hierarchy.mount.clone();
        let is_cpuset = hierarchy.controllers.iter().any(|name| name == "cpuset");
        // Mostly the last one alone is missing. On v1 nothing else is to be done, but for cpuset.
        if !self.unified && !is_cpuset && fs::create_dir(folder.join(cgroup.trim_start_matches('/'))).is_ok()
        {
            return Ok(());
        }
        for part in cgroup.split('/').filter(|part| !part.is_empty()) {
            let parent = folder.clone();
            folder.push(part);
            if self.unified {
                // Even where the child exists: who has just made it may not have come to this yet.
                enable_controllers(&parent);
            }
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if is_cpuset {
                inherit_cpuset(&parent, &folder)?;
            }
        }
        Ok(())
    }

    fn set(&self, cgroup: &str, settings: &[Setting]) -> io::Result<()> {
        for (controller, file, value) in settings {
            if let Some(folder) = self.folder(controller, cgroup) {
                let named =
                    |error: io::Error| io::Error::new(error.kind(), format!("{file}={value}: {error}"));
                fs::write(folder.join(&**file), value).map_err(named)?;
            }
        }
        Ok(())
    }

    /// Moves the calling process, which has one thread, into `cgroup` in each tree.
    pub(crate) fn join(&self, cgroup: &str) -> io::Result<()> {
        let file = if self.unified { "cgroup.procs" } else { "tasks" };
        self.folders(cgroup)
            .try_for_each(|folder| fs::write(folder.join(file), "0"))
    }

    /// All processes in `cgroup` and below.
    pub(crate) fn processes(&self, cgroup: &str) -> Vec<Pid> {
        let mut pids = Vec::new();
        for folder in self.folders(cgroup) {
            collect_processes(&folder, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Sends SIGKILL to every process in `cgroup` and below, once.
    pub(crate) fn kill(&self, cgroup: &str) {
        if self.unified {
            for folder in self.folders(cgroup) {
                if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
                    return;
                }
            }
        }
        for pid in self.processes(cgroup) {
            // A process that is gone already is what is wanted.
            kill(pid, Signal::SIGKILL).ok();
        }
    }

    /// Removes `cgroup` and all below; waits a little for processes that are just dying. Absent is fine.
    pub(crate) fn remove(&self, cgroup: &str) -> io::Result<()> {
        self.folders(cgroup).try_for_each(|folder| remove_folder(&folder))
    }

    /// How many processes of `cgroup` the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self, cgroup: &str) -> u64 {
        let file = if self.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        self.folder("memory", cgroup)
            .and_then(|folder| fs::read_to_string(folder.join(file)).ok())
            .and_then(|text| flat_value(&text, "oom_kill"))
            .unwrap_or(0)
    }
}

/// Lets children of a v2 folder use what it has; what cannot be enabled makes the limit fail that needs it.
fn enable_controllers(folder: &Path) {
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let enabled = read("cgroup.subtree_control");
    let is_enabled = |controller: &&str| enabled.split_whitespace().any(|name| name == *controller);
    let available = read("cgroup.controllers");
    for controller in available.split_whitespace().filter(|name| !is_enabled(name)) {
        fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}")).ok();
    }
}

/// A new v1 cpuset has no CPUs and takes no process until it gets some.
fn inherit_cpuset(parent: &Path, folder: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(folder.join(file))?.trim().is_empty() {
            fs::write(folder.join(file), fs::read(parent.join(file))?)?;
        }
    }
    Ok(())
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn collect_processes(folder: &Path, pids: &mut Vec<Pid>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    pids.extend(
        text.lines()
            .filter_map(|line| line.parse().ok())
            .map(Pid::from_raw),
    );
    for child in subfolders(folder) {
        collect_processes(&child, pids);
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    for child in subfolders(folder) {
        remove_folder(&child)?;
    }
    for attempt in 1.. {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // EBUSY: a process of it has not quite ended.
            Err(error) if attempt >= REMOVE_ATTEMPTS => return Err(error),
            Err(_) => thread::sleep(REMOVE_PAUSE),
        }
    }
    Ok(())
}

fn flat_value(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_pod_and_its_container_get_their_files() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| root.path().join(name);
        for name in ["", "f", "f/burstable", "f/burstable/podu"] {
            fs::create_dir_all(folder(name)).unwrap();
            fs::write(folder(name).join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        }
        let cgroups = Cgroups::unified_at(root.path());
        let resources = Resources {
            cpu_shares: Some(512),
            cpu_quota: Some(20_000),
            memory_limit: Some(64 << 20),
            pids: Some(100),
            ..Resources::default()
        };
        cgroups.create_pod("/f/burstable/podu", &resources).unwrap();
        cgroups
            .create_container("/f/burstable/podu/c-0", &resources, false)
            .unwrap();
        cgroups
            .complete_container("/f/burstable/podu/c-0", &resources)
            .unwrap();
        let read = |file: &str| fs::read_to_string(folder("f/burstable/podu").join(file)).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("memory.swap.max"), "0");
        assert!(
            read("cgroup.subtree_control").starts_with('+'),
            "its children may be limited"
        );
        assert!(
            fs::read_to_string(folder("f/burstable/cgroup.subtree_control")).is_ok(),
            "that a folder is there does not mean that its parent lets it be limited"
        );
        assert_eq!(read("c-0/cpu.max"), "20000 100000");
        assert_eq!(read("c-0/cpu.weight"), "20");
        assert_eq!(read("c-0/pids.max"), "100");
        assert_eq!(read("c-0/memory.oom.group"), "1");
        cgroups
            .update("/f/burstable/podu/c-0", &Resources::default())
            .unwrap();
        assert_eq!(
            (read("c-0/cpu.max"), read("c-0/memory.max")),
            ("max 100000".into(), "max".into())
        );
    }

    #[test]
    fn oom_kills_are_read_apart_from_their_neighbours() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let v2 = "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(flat_value(v1, "oom_kill"), Some(3));
        assert_eq!(flat_value(v2, "oom_kill"), Some(2));
    }
}
