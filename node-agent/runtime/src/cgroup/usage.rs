//! What the processes of a cgroup use, as the kernel counts it. Reading is apart from understanding.

use super::{Cgroups, flat_value};

/// What the processes of a pod or a container use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of processor time since the cgroup was made.
    pub cpu_nanos: u64,
    /// Bytes of memory, file cache included.
    pub memory_bytes: u64,
    /// Bytes of memory without the part of the file cache that the kernel would give up first.
    pub working_set_bytes: u64,
    /// Bytes of memory that no file stands behind.
    pub rss_bytes: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that had to read from a disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub processes: u64,
}

/// The content of the kernel's files, empty where one is not there.
#[derive(Debug, Default)]
struct Counters {
    /// `cpuacct.usage`, or `cpu.stat` on v2.
    cpu: String,
    /// `memory.usage_in_bytes` or `memory.current`.
    memory: String,
    /// `memory.stat`
    memory_stat: String,
    /// `pids.current`
    pids: String,
}

impl Cgroups {
    /// What the processes in `cgroup` and below use. A cgroup that is gone uses nothing.
    pub(crate) fn usage(&self, cgroup: &str) -> Usage {
        let read = |controller: &str, file: &str| {
            self.folder(controller, cgroup)
                .and_then(|folder| std::fs::read_to_string(folder.join(file)).ok())
                .unwrap_or_default()
        };
        let unified = self.is_unified();
        let (cpu, memory) = match unified {
            true => ("cpu.stat", "memory.current"),
            false => ("cpuacct.usage", "memory.usage_in_bytes"),
        };
        let counters = Counters {
            cpu: read("cpuacct", cpu),
            memory: read("memory", memory),
            memory_stat: read("memory", "memory.stat"),
            pids: read("pids", "pids.current"),
        };
        understand(unified, &counters)
    }
}

fn understand(unified: bool, counters: &Counters) -> Usage {
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
    // v1 counts the cgroup alone under the plain names, and all below it under these.
    let [inactive, rss, faults, major] = match unified {
        true => ["inactive_file", "anon", "pgfault", "pgmajfault"],
        false => [
            "total_inactive_file",
            "total_rss",
            "total_pgfault",
            "total_pgmajfault",
        ],
    };
    let stat = |name: &str| {
        let line = counters
            .memory_stat
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| flat_value(line, name)).unwrap_or(0)
    };
    let memory_bytes = number(&counters.memory);
    Usage {
        cpu_nanos: match unified {
            true => flat_value(&counters.cpu, "usage_usec")
                .unwrap_or(0)
                .saturating_mul(1000),
            false => number(&counters.cpu),
        },
        memory_bytes,
        working_set_bytes: memory_bytes.saturating_sub(stat(inactive)),
        rss_bytes: stat(rss),
        page_faults: stat(faults),
        major_page_faults: stat(major),
        processes: number(&counters.pids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_the_same_in_other_words() {
        let v1 = Counters {
            cpu: "5000000\n".to_owned(),
            memory: "4096\n".to_owned(),
            memory_stat: "rss 1\ninactive_file 7\ntotal_rss 1024\ntotal_inactive_file 1000\ntotal_pgfault 9\ntotal_pgmajfault 2\n".to_owned(),
            pids: "3\n".to_owned(),
        };
        let v2 = Counters {
            cpu: "usage_usec 5000\nuser_usec 1\n".to_owned(),
            memory: "4096\n".to_owned(),
            memory_stat: "anon 1024\nanon_thp 5\ninactive_file 1000\npgfault 9\npgmajfault 2\n".to_owned(),
            pids: "3\n".to_owned(),
        };
        let expected = Usage {
            cpu_nanos: 5_000_000,
            memory_bytes: 4096,
            working_set_bytes: 3096,
            rss_bytes: 1024,
            page_faults: 9,
            major_page_faults: 2,
            processes: 3,
        };
        assert_eq!(understand(false, &v1), expected);
        assert_eq!(understand(true, &v2), expected);
        assert_eq!(understand(true, &Counters::default()), Usage::default());
    }
}
