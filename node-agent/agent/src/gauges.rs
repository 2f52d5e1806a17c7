//! What a machine has and uses as a whole, read from the kernel's files.
//!
//! [`Gauges`] is what the agent reads; [`HostGauges`] is this machine. Tests put other numbers behind it.

use std::path::{Path, PathBuf};

use flotilla_lifecycle::pressure::{Level, Levels, Signal};

/// A file system's space and files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) available_bytes: u64,
    pub(crate) capacity_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

/// The machine's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total_bytes: u64,
    pub(crate) usage_bytes: u64,
    /// Without the part of the file cache that the kernel would give up first.
    pub(crate) working_set_bytes: u64,
    pub(crate) rss_bytes: u64,
}

/// Process numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pids {
    pub(crate) max: u64,
    pub(crate) used: u64,
}

/// One look at the machine. What cannot be read is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Nanoseconds of processor time since boot.
    pub(crate) cpu_nanos: Option<u64>,
    pub(crate) memory: Option<Memory>,
    /// Where pods write.
    pub(crate) node_disk: Option<Disk>,
    /// Where images are.
    pub(crate) image_disk: Option<Disk>,
    pub(crate) pids: Option<Pids>,
}

impl Reading {
    /// The reading as levels of which there can be too little.
    pub(crate) fn levels(&self) -> Levels {
        let level = |available: u64, capacity: u64| Level {
            available: whole(available),
            capacity: whole(capacity),
        };
        let mut levels = Levels::new();
        if let Some(memory) = self.memory {
            let free = memory.total_bytes.saturating_sub(memory.working_set_bytes);
            levels.insert(Signal::MemoryAvailable, level(free, memory.total_bytes));
        }
        for (disk, space, inodes) in [
            (self.node_disk, Signal::NodeFsAvailable, Signal::NodeFsInodesFree),
            (
                self.image_disk,
                Signal::ImageFsAvailable,
                Signal::ImageFsInodesFree,
            ),
        ] {
            let Some(disk) = disk else { continue };
            levels.insert(space, level(disk.available_bytes, disk.capacity_bytes));
            // Some file systems make inodes as they are needed and count none.
            if disk.inodes > 0 {
                levels.insert(inodes, level(disk.inodes_free, disk.inodes));
            }
        }
        if let Some(pids) = self.pids {
            levels.insert(
                Signal::PidAvailable,
                level(pids.max.saturating_sub(pids.used), pids.max),
            );
        }
        levels
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where a machine's numbers come from.
pub(crate) trait Gauges: Send + Sync + 'static {
    /// Looks at the machine.
    fn read(&self) -> Reading;
}

/// This machine.
#[derive(Debug)]
pub(crate) struct HostGauges {
    data_dir: PathBuf,
    images_dir: PathBuf,
}

impl HostGauges {
    /// Reads the disks on which these folders are.
    pub(crate) fn new(data_dir: PathBuf, images_dir: PathBuf) -> Self {
        Self { data_dir, images_dir }
    }
}

impl Gauges for HostGauges {
    fn read(&self) -> Reading {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Reading {
            cpu_nanos: busy_nanos(&text("/proc/stat")),
            memory: memory(&text("/proc/meminfo")),
            node_disk: disk(&self.data_dir),
            image_disk: disk(&self.images_dir).or_else(|| disk(&self.data_dir)),
            pids: pids(
                &text("/proc/loadavg"),
                &text("/proc/sys/kernel/pid_max"),
                &text("/proc/sys/kernel/threads-max"),
            ),
        }
    }
}

/// The file system on which a folder is.
pub(crate) fn disk(folder: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(Disk {
        available_bytes: bytes(found.f_bavail),
        capacity_bytes: bytes(found.f_blocks),
        free_bytes: bytes(found.f_bfree),
        inodes: found.f_files,
        inodes_free: found.f_favail,
    })
}

/// A number of `/proc/meminfo`, in bytes.
pub(crate) fn memory_bytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line
        .strip_prefix(':')?
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    Some(kibibytes << 10)
}

fn memory(meminfo: &str) -> Option<Memory> {
    let of = |field| memory_bytes(meminfo, field);
    let (total_bytes, free) = (of("MemTotal")?, of("MemFree")?);
    let usage_bytes = total_bytes.saturating_sub(free);
    Some(Memory {
        total_bytes,
        usage_bytes,
        working_set_bytes: usage_bytes.saturating_sub(of("Inactive(file)").unwrap_or(0)),
        rss_bytes: of("AnonPages").unwrap_or(0),
    })
}

/// The first line of `/proc/stat`: ticks in user, nice, system, idle, iowait, irq, softirq, steal.
fn busy_nanos(stat: &str) -> Option<u64> {
    const NANOS_PER_TICK: u64 = 10_000_000;
    let ticks: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let busy = [0, 1, 2, 5, 6].map(|index| ticks.get(index).copied().unwrap_or(0));
    Some(busy.iter().sum::<u64>().saturating_mul(NANOS_PER_TICK))
}

fn pids(loadavg: &str, pid_max: &str, threads_max: &str) -> Option<Pids> {
    let used = loadavg.split(' ').nth(3)?.split_once('/')?.1.parse().ok()?;
    let limits = [pid_max, threads_max].map(|text| text.trim().parse::<u64>().ok());
    let max = limits.into_iter().flatten().min()?;
    Some(Pids { max, used })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        let meminfo =
            "MemTotal:       1000 kB\nMemFree:         300 kB\nInactive(file):  200 kB\nAnonPages: 50 kB\n";
        let found = memory(meminfo).unwrap();
        assert_eq!(
            (found.usage_bytes, found.working_set_bytes),
            (700 << 10, 500 << 10)
        );
        assert_eq!(memory("nothing"), None);
        let stat = "cpu  10 1 20 1000 50 3 4 5 0 0\ncpu0 1 2 3\n";
        assert_eq!(busy_nanos(stat), Some(38 * 10_000_000));
        let found = pids("0.1 0.2 0.3 2/345 6789\n", "4194304\n", "190000\n").unwrap();
        assert_eq!((found.max, found.used), (190_000, 345));
    }

    #[test]
    fn a_reading_tells_of_what_there_may_be_too_little() {
        let reading = Reading {
            memory: Some(Memory {
                total_bytes: 100,
                working_set_bytes: 90,
                ..Memory::default()
            }),
            node_disk: Some(Disk {
                available_bytes: 5,
                capacity_bytes: 50,
                ..Disk::default()
            }),
            pids: Some(Pids { max: 10, used: 3 }),
            ..Reading::default()
        };
        let told: Vec<String> = reading
            .levels()
            .iter()
            .map(|(signal, level)| format!("{signal} {}/{}", level.available, level.capacity))
            .collect();
        assert_eq!(
            told,
            [
                "memory.available 10/100",
                "nodefs.available 5/50",
                "pid.available 7/10"
            ]
        );
    }

    #[test]
    fn this_machine_can_be_read() {
        let reading = HostGauges::new("/".into(), "/".into()).read();
        assert!(reading.cpu_nanos.is_some() && reading.memory.is_some() && reading.pids.is_some());
        assert!(reading.node_disk.is_some_and(|disk| disk.capacity_bytes > 0));
    }
}
