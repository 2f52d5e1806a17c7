//! Which cgroup trees a machine has. Pure.

use std::path::PathBuf;

/// v1 controllers that containers are put into.
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

/// One mounted tree of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Its root.
    pub(super) mount: PathBuf,
    /// v1 only.
    pub(super) controllers: Vec<String>,
}

/// The trees to use, and whether it is the one of v2.
pub(super) fn from_mountinfo(mountinfo: &str) -> (bool, Vec<Hierarchy>) {
    let mut v1 = Vec::new();
    let mut v2 = None;
    for (kind, mount, options) in cgroup_mounts(mountinfo) {
        let mount = PathBuf::from(mount);
        if kind == "cgroup2" {
            v2 = Some(Hierarchy {
                mount,
                controllers: Vec::new(),
            });
            continue;
        }
        let controllers: Vec<String> = options
            .split(',')
            .filter(|name| V1_CONTROLLERS.contains(name))
            .map(Into::into)
            .collect();
        // A tree that is mounted a second time is the same tree.
        if !controllers.is_empty()
            && v1
                .iter()
                .all(|known: &Hierarchy| known.controllers != controllers)
        {
            v1.push(Hierarchy { mount, controllers });
        }
    }
    // A v2 tree beside v1 ones ("hybrid") has no controllers.
    match v2 {
        Some(hierarchy) if v1.is_empty() => (true, vec![hierarchy]),
        _ => (false, v1),
    }
}

/// Type, place and options of every mounted tree.
pub(super) fn cgroup_mounts(mountinfo: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        matches!(kind, "cgroup" | "cgroup2").then_some((kind, left.split(' ').nth(4)?, options))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_uses_its_v1_trees() {
        let (unified, hierarchies) = from_mountinfo(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
             36 31 0:32 / /elsewhere/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
        );
        let mounts: Vec<_> = hierarchies
            .iter()
            .map(|hierarchy| hierarchy.mount.to_str().unwrap())
            .collect();
        assert!(!unified);
        assert_eq!(mounts, ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory"]);
        assert_eq!(hierarchies[0].controllers, ["cpu", "cpuacct"]);
    }

    #[test]
    fn a_machine_with_only_v2_is_unified() {
        let line = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate";
        let (unified, hierarchies) = from_mountinfo(line);
        assert!(unified);
        assert_eq!(hierarchies[0].mount, PathBuf::from("/sys/fs/cgroup"));
    }
}
