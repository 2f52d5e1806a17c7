//! The processes of a cluster, as `/proc` shows them, and what they use.

use std::collections::BTreeMap;
use std::fs;

use crate::Cluster;

const TICKS_PER_SECOND: f64 = 100.0;

/// What a process of a cluster does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A server or an agent.
    Node,
    /// Looks after the containers of one pod.
    Shim,
    /// Runs in a pod.
    Container,
    /// Anything else that `flotilla local` keeps.
    Other,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number on the machine.
    pub pid: u32,
    /// What it does.
    pub role: Role,
    /// Its cgroup below the cluster's: `agent-1/podUID/web-0`.
    pub place: String,
    /// The first two words of its command line.
    pub command: String,
}

/// All processes in the cluster's cgroups.
pub fn of(cluster: &Cluster) -> Vec<Process> {
    let marker = format!("/flotilla-local/{}/", cluster.name());
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| process(pid, &marker)).collect()
}

fn process(pid: u32, marker: &str) -> Option<Process> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let place = place(&cgroups, marker)?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .take(2)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    // Kernel threads and zombies have no command line; a zombie is its parent's affair for another moment.
    let verb = words.get(1).map_or("", String::as_str);
    let role = match verb {
        "server" | "agent" => Role::Node,
        "shim" => Role::Shim,
        _ if place.contains("/pod") => Role::Container,
        _ => Role::Other,
    };
    (!words.is_empty()).then(|| Process {
        pid,
        role,
        place,
        command: words.join(" "),
    })
}

/// The deepest of a process's places below the cluster's: pods have cgroups in some trees only, so that their processes
/// are where their shim is in the others.
fn place(cgroups: &str, marker: &str) -> Option<String> {
    let places = cgroups.lines().filter_map(|line| line.split_once(marker));
    let deepest = places.max_by_key(|(_, place)| place.len())?;
    Some(deepest.1.to_owned())
}

/// Resident memory of a process in MB; nothing when it is gone.
pub fn resident_mb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kilobytes(&status, "VmRSS:").map(|kilobytes| kilobytes / 1024.0)
}

/// Memory of a process in MB where what it shares with others is divided among them.
pub fn proportional_mb(pid: u32) -> Option<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    kilobytes(&rollup, "Pss:").map(|kilobytes| kilobytes / 1024.0)
}

fn kilobytes(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Processor time of a process so far, in seconds; nothing when it is gone.
pub fn processor_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: Vec<f64> = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    (ticks.len() == 2).then(|| ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// How many processes there are of each kind and place, for comparison.
pub(crate) fn counts(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for process in of(cluster) {
        let name = process.command.rsplit('/').next().unwrap_or_default().to_owned();
        *counts
            .entry(format!("{} in {}", name, process.place))
            .or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_a_pod_is_in_its_pod_though_some_trees_have_no_pods() {
        let cgroups = "9:name=systemd:/flotilla-local/t/agent-1\n\
                       4:memory:/flotilla-local/t/agent-1/besteffort/podU/web-0\n0::/\n";
        let place = place(cgroups, "/flotilla-local/t/");
        assert_eq!(place.as_deref(), Some("agent-1/besteffort/podU/web-0"));
    }
}
