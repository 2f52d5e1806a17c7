//! The pods' cgroups, in v1 hierarchies or the v2 tree.
//!
//! libcontainer makes and limits a container's own cgroup; the pod's, and everything about killing and
//! removing, is done here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::spec::Resources;

/// v1 controllers that libcontainer puts containers into.
const V1_CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "hugetlb",
    "memory",
    "pids",
    "perf_event",
    "blkio",
    "net_prio",
    "net_cls",
    "freezer",
];

/// How often and after which pause a cgroup whose processes are still dying is tried again.
const REMOVE_ATTEMPTS: u32 = 200;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// One mounted tree of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    controllers: Vec<String>,
}

/// The machine's cgroup trees that pods use.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    unified: bool,
    hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    /// Looks at what is mounted.
    pub(crate) fn detect() -> io::Result<Cgroups> {
        Ok(from_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?))
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

    /// Makes `cgroup` in each tree and sets its limits; one that exists gets them as well.
    pub(crate) fn create(&self, cgroup: &str, resources: &Resources) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            self.create_in(hierarchy, cgroup)?;
        }
        self.limit(cgroup, resources)
    }

    fn create_in(&self, hierarchy: &Hierarchy, cgroup: &str) -> io::Result<()> {
        let mut folder = hierarchy.mount.clone();
        let cpuset = hierarchy.controllers.iter().any(|name| name == "cpuset") && !self.unified;
        for part in cgroup.split('/').filter(|part| !part.is_empty()) {
            if self.unified {
                enable_controllers(&folder);
            }
            let parent = folder.clone();
            folder.push(part);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if cpuset {
                inherit_cpuset(&parent, &folder)?;
            }
        }
        if self.unified {
            enable_controllers(&folder);
        }
        Ok(())
    }

    fn limit(&self, cgroup: &str, resources: &Resources) -> io::Result<()> {
        for (controller, file, value) in limits(self.unified, resources) {
            if let Some(folder) = self.folder(controller, cgroup) {
                fs::write(folder.join(file), value)?;
            }
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
        Ok(())
    }

    /// Moves the calling process into `cgroup` in each tree.
    pub(crate) fn join(&self, cgroup: &str) -> io::Result<()> {
        for folder in self.folders(cgroup) {
            // On v2 a folder with controllers enabled for its children holds no process itself.
            let target = if self.unified { folder.join("warm") } else { folder };
            if self.unified {
                fs::create_dir_all(&target)?;
            }
            fs::write(target.join("cgroup.procs"), "0")?;
        }
        Ok(())
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

fn from_mountinfo(mountinfo: &str) -> Cgroups {
    let mut v1 = Vec::new();
    let mut v2 = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut right = right.split(' ');
        let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
        let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else {
            continue;
        };
        match kind {
            Some("cgroup") => {
                let controllers: Vec<String> = options
                    .split(',')
                    .filter(|name| V1_CONTROLLERS.contains(name))
                    .map(Into::into)
                    .collect();
                if !controllers.is_empty() {
                    v1.push(Hierarchy { mount, controllers });
                }
            }
            Some("cgroup2") => {
                v2 = Some(Hierarchy {
                    mount,
                    controllers: Vec::new(),
                })
            }
            _ => {}
        }
    }
    // A v2 tree beside v1 ones ("hybrid") has no controllers, and libcontainer leaves it alone.
    match v2 {
        Some(hierarchy) if v1.is_empty() => Cgroups {
            unified: true,
            hierarchies: vec![hierarchy],
        },
        _ => Cgroups {
            unified: false,
            hierarchies: v1,
        },
    }
}

/// Controller, file and content for each limit that is set.
fn limits(unified: bool, resources: &Resources) -> Vec<(&'static str, &'static str, String)> {
    let mut files = Vec::new();
    let period = resources.cpu_period.unwrap_or(100_000);
    if let Some(shares) = resources.cpu_shares {
        files.push(match unified {
            true => ("cpu", "cpu.weight", weight(shares).to_string()),
            false => ("cpu", "cpu.shares", shares.to_string()),
        });
    }
    if let Some(quota) = resources.cpu_quota {
        if unified {
            files.push(("cpu", "cpu.max", format!("{quota} {period}")));
        } else {
            files.push(("cpu", "cpu.cfs_period_us", period.to_string()));
            files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
        }
    }
    if let Some(bytes) = resources.memory_limit {
        let file = if unified {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        files.push(("memory", file, bytes.to_string()));
    }
    if let Some(pids) = resources.pids {
        files.push(("pids", "pids.max", pids.to_string()));
    }
    files
}

/// v1 shares (2 to 262144) as a v2 weight (1 to 10000), as runc converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Lets children of a v2 folder use what it has; what cannot be enabled makes the limit fail that needs it.
fn enable_controllers(folder: &Path) {
    let available = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
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
    fn a_hybrid_machine_uses_its_v1_trees() {
        let cgroups = from_mountinfo(
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
        );
        assert!(!cgroups.is_unified());
        assert_eq!(
            cgroups.folders("/flotilla/a").collect::<Vec<_>>(),
            [
                PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/flotilla/a"),
                PathBuf::from("/sys/fs/cgroup/memory/flotilla/a")
            ]
        );
        assert_eq!(
            cgroups.folder("cpuacct", "/x"),
            Some("/sys/fs/cgroup/cpu,cpuacct/x".into())
        );
    }

    #[test]
    fn a_machine_with_only_v2_is_unified() {
        let cgroups = from_mountinfo("41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw");
        assert!(cgroups.is_unified());
        assert_eq!(cgroups.folder("memory", "/x"), Some("/sys/fs/cgroup/x".into()));
    }

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        let resources = Resources {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpu_period: None,
            memory_limit: Some(1 << 20),
            pids: Some(10),
        };
        let files = |unified| {
            limits(unified, &resources)
                .into_iter()
                .map(|(_, file, value)| (file, value))
        };
        assert_eq!(
            files(true).collect::<Vec<_>>(),
            [
                ("cpu.weight", "39".to_owned()),
                ("cpu.max", "50000 100000".to_owned()),
                ("memory.max", "1048576".to_owned()),
                ("pids.max", "10".to_owned())
            ]
        );
        assert_eq!(files(false).next(), Some(("cpu.shares", "1024".to_owned())));
    }

    #[test]
    fn oom_kills_are_read_apart_from_their_neighbours() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let v2 = "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(flat_value(v1, "oom_kill "), Some(3));
        assert_eq!(flat_value(v1, "oom_kill"), Some(3));
        assert_eq!(flat_value(v2, "oom_kill"), Some(2));
    }
}
