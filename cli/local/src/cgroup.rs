//! Cgroups in every hierarchy that the machine has, v1 and v2, as if they were one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LocalError;
use crate::error::{At, unless_taken_away};

/// How long killed processes and their cgroups may take to go.
const END_LIMIT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A path below the root of every hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup {
    path: String,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount_point: PathBuf,
    v2: bool,
    /// v1 only.
    controllers: Vec<String>,
}

impl Cgroup {
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    pub(crate) fn child(&self, name: &str) -> Self {
        Self::new(format!("{}/{name}", self.path))
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Makes the cgroup, and what is above it, in every hierarchy.
    pub(crate) fn create(&self) -> Result<(), LocalError> {
        let hierarchies = hierarchies()?;
        let only_v2 = hierarchies.iter().all(|hierarchy| hierarchy.v2);
        hierarchies
            .iter()
            .try_for_each(|hierarchy| unless_taken_away(|| self.create_in(hierarchy, only_v2)))
    }

    fn create_in(&self, hierarchy: &Hierarchy, only_v2: bool) -> Result<(), LocalError> {
        let mut folder = hierarchy.mount_point.clone();
        for part in self.path.split('/').filter(|part| !part.is_empty()) {
            if only_v2 {
                enable_controllers(&folder);
            }
            folder.push(part);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).at("create", &folder);
                }
                _ => {}
            }
            if hierarchy
                .controllers
                .iter()
                .any(|controller| controller == "cpuset")
            {
                inherit_cpus(&folder)?;
            }
        }
        Ok(())
    }

    /// Moves this process into the cgroup.
    pub(crate) fn join(&self) -> Result<(), LocalError> {
        for folder in self.folders()? {
            let procs = folder.join("cgroup.procs");
            fs::write(&procs, "0").at("join", &procs)?;
        }
        Ok(())
    }

    /// Every process in the cgroup or below it, in any hierarchy.
    pub(crate) fn processes(&self) -> Result<BTreeSet<i32>, LocalError> {
        let mut processes = BTreeSet::new();
        for folder in self.folders()? {
            collect_processes(&folder, &mut processes);
        }
        Ok(processes)
    }

    /// Kills everything in the cgroup and below it, frozen or not, and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<(), LocalError> {
        let end = Instant::now() + END_LIMIT;
        loop {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(());
            }
            for folder in self.folders()? {
                // Kills what is forked meanwhile as well; only v2 has it.
                let _ = write_existing(&folder.join("cgroup.kill"), "1");
            }
            for pid in &processes {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            // A frozen process does not die before it thaws, and each cgroup below may be frozen by itself.
            for hierarchy in freezers(hierarchies()?) {
                hierarchy.thaw_tree(&hierarchy.folder(&self.path));
            }
            if Instant::now() > end {
                let left = processes.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
                return Err(io::Error::other(format!("these processes do not end: {left}")))
                    .at("empty", Path::new(&self.path));
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Stops or continues everything in the cgroup and below it; waits until it is so.
    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<(), LocalError> {
        for hierarchy in freezers(hierarchies()?) {
            let folder = hierarchy.folder(&self.path);
            let done = hierarchy.write_frozen(&folder, frozen);
            done.at("freeze or thaw", &folder)?;
            let end = Instant::now() + END_LIMIT;
            while frozen && !hierarchy.is_frozen(&folder) && Instant::now() < end {
                thread::sleep(LOOK_INTERVAL);
            }
        }
        Ok(())
    }

    pub(crate) fn is_frozen(&self) -> Result<bool, LocalError> {
        let mut freezers = freezers(hierarchies()?).into_iter();
        Ok(freezers.any(|hierarchy| hierarchy.is_frozen(&hierarchy.folder(&self.path))))
    }

    /// Removes the cgroup and all below it, once it has no processes.
    pub(crate) fn remove(&self) -> Result<(), LocalError> {
        let end = Instant::now() + END_LIMIT;
        for folder in self.folders()? {
            while let Err(error) = remove_tree(&folder) {
                // A dead process leaves its cgroup a moment after it is gone.
                if Instant::now() > end {
                    return Err(error).at("remove", &folder);
                }
                thread::sleep(LOOK_INTERVAL);
            }
        }
        Ok(())
    }

    /// Removes the cgroup above if nobody else needs it.
    pub(crate) fn remove_empty_parent(&self) -> Result<(), LocalError> {
        for hierarchy in hierarchies()? {
            if let Some(parent) = hierarchy.folder(&self.path).parent() {
                let _ = fs::remove_dir(parent);
            }
        }
        Ok(())
    }

    fn folders(&self) -> Result<Vec<PathBuf>, LocalError> {
        let folders = hierarchies()?
            .into_iter()
            .map(|hierarchy| hierarchy.folder(&self.path));
        Ok(folders.filter(|folder| folder.is_dir()).collect())
    }
}

impl Hierarchy {
    fn folder(&self, path: &str) -> PathBuf {
        self.mount_point.join(path.trim_start_matches('/'))
    }

    fn write_frozen(&self, folder: &Path, frozen: bool) -> io::Result<()> {
        match (self.v2, frozen) {
            (true, true) => write_existing(&folder.join("cgroup.freeze"), "1"),
            (true, false) => write_existing(&folder.join("cgroup.freeze"), "0"),
            (false, true) => write_existing(&folder.join("freezer.state"), "FROZEN"),
            (false, false) => write_existing(&folder.join("freezer.state"), "THAWED"),
        }
    }

    fn thaw_tree(&self, folder: &Path) {
        for child in children(folder) {
            self.thaw_tree(&child);
        }
        // It may be gone by now.
        let _ = self.write_frozen(folder, false);
    }

    fn is_frozen(&self, folder: &Path) -> bool {
        if self.v2 {
            let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
            return events.lines().any(|line| line == "frozen 1");
        }
        fs::read_to_string(folder.join("freezer.state")).is_ok_and(|state| state.trim() == "FROZEN")
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>, LocalError> {
    let path = Path::new("/proc/self/mountinfo");
    fs::read_to_string(path)
        .map(|table| parse_mounts(&table))
        .at("read", path)
}

fn parse_mounts(table: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in table.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else {
            continue;
        };
        let mut words = file_system.split(' ');
        let v2 = match words.next() {
            Some("cgroup") => false,
            Some("cgroup2") => true,
            _ => continue,
        };
        let Some(mount_point) = mount.split(' ').nth(4).map(PathBuf::from) else {
            continue;
        };
        let controllers = words
            .nth(1)
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
            .collect();
        let hierarchy = Hierarchy {
            mount_point,
            v2,
            controllers,
        };
        // The same hierarchy may be mounted twice.
        if !found
            .iter()
            .any(|other| other.v2 == v2 && other.controllers == hierarchy.controllers)
        {
            found.push(hierarchy);
        }
    }
    found
}

/// The v1 freezer if there is one: on hybrid machines containers are in its cgroups.
fn freezers(hierarchies: Vec<Hierarchy>) -> Vec<Hierarchy> {
    let is_freezer =
        |hierarchy: &Hierarchy| !hierarchy.v2 && hierarchy.controllers.iter().any(|name| name == "freezer");
    let v1 = hierarchies.iter().any(is_freezer);
    hierarchies
        .into_iter()
        .filter(|hierarchy| if v1 { is_freezer(hierarchy) } else { hierarchy.v2 })
        .collect()
}

/// v2 gives controllers to children only where the parent says so. Those that it refuses are not needed here.
fn enable_controllers(folder: &Path) {
    let available = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A v1 cpuset takes no process before it has processors and memory nodes.
fn inherit_cpus(folder: &Path) -> Result<(), LocalError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = folder.join(file);
        if fs::read_to_string(&own).at("read", &own)?.trim().is_empty() {
            let parent = folder.parent().unwrap_or(folder).join(file);
            let value = fs::read_to_string(&parent).at("read", &parent)?;
            fs::write(&own, value.trim()).at("write", &own)?;
        }
    }
    Ok(())
}

fn collect_processes(folder: &Path, processes: &mut BTreeSet<i32>) {
    let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    processes.extend(
        list.lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .filter(|pid| *pid > 0),
    );
    for child in children(folder) {
        collect_processes(&child, processes);
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for child in children(folder) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes to a control file; one that is not there has nothing to control.
fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).open(path) {
        Ok(mut file) => io::Write::write_all(&mut file, value.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 24 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/freezer rw,relatime shared:9 - cgroup cgroup rw,freezer
28 25 0:25 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
29 25 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
30 25 0:24 / /other/freezer rw,relatime - cgroup cgroup rw,freezer
";

    #[test]
    fn each_hierarchy_is_found_once() {
        let found = parse_mounts(HYBRID);
        let points: Vec<_> = found
            .iter()
            .map(|hierarchy| hierarchy.mount_point.to_str().unwrap())
            .collect();
        assert_eq!(
            points,
            [
                "/sys/fs/cgroup/cpu,cpuacct",
                "/sys/fs/cgroup/freezer",
                "/sys/fs/cgroup/systemd",
                "/sys/fs/cgroup/unified"
            ]
        );
        assert_eq!(found[0].controllers, ["rw", "cpu", "cpuacct"]);
    }

    #[test]
    fn one_cluster_may_start_while_another_goes() {
        let parent = format!("/flotilla-local-test-{}", std::process::id());
        thread::scope(|scope| {
            for name in ["a", "b"] {
                let cgroup = Cgroup::new(&parent).child(name);
                scope.spawn(move || {
                    for _ in 0..200 {
                        cgroup.create().unwrap();
                        cgroup.remove().unwrap();
                        cgroup.remove_empty_parent().unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn the_v1_freezer_is_preferred() {
        let found = freezers(parse_mounts(HYBRID));
        assert_eq!(found.len(), 1);
        assert!(!found[0].v2);
        let only_v2 = "29 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert!(freezers(parse_mounts(only_v2))[0].v2);
    }
}
