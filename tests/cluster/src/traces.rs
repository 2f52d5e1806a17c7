//! What a cluster has on the machine: processes, mounts, cgroups, links, addresses, routes, nftables rules.
//!
//! Taken before and after a time of trouble, two such lists tell what was left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Cluster, processes, succeed};

/// Everything of a cluster that could be left behind, as lines of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Looks at the machine.
    pub fn of(cluster: &Cluster, nodes: &[&str]) -> Traces {
        let mut lines = BTreeSet::new();
        for (process, count) in processes::counts(cluster) {
            lines.insert(format!("process {process} x{count}"));
        }
        lines.extend(cgroups(cluster).into_iter().map(|path| format!("cgroup {path}")));
        for node in nodes {
            let pid = cluster.pid(node);
            let mut note = |kind: &str, found: Vec<String>| {
                for (line, count) in counted(found) {
                    lines.insert(format!("{node}: {kind} {line} x{count}"));
                }
            };
            note("mount", mounts(pid));
            note("link", names(&inside(pid, &["ip", "-o", "link"])));
            note("address", texts(&inside(pid, &["ip", "-o", "-4", "addr"])));
            note("route", texts(&inside(pid, &["ip", "-4", "route"])));
            note("rule", texts(&inside(pid, &["nft", "-s", "list", "ruleset"])));
            note("namespace", namespaces(pid));
        }
        Traces(lines)
    }

    /// What is here and was not there.
    pub fn beyond(&self, before: &Traces) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

fn counted(lines: Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

/// The cgroups of a cluster in whatever hierarchies there are, without the hierarchy's name.
fn cgroups(cluster: &Cluster) -> BTreeSet<String> {
    let below = format!("flotilla-local/{}", cluster.name());
    let mut found = BTreeSet::new();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    for hierarchy in hierarchies.map(|entry| entry.path()).chain([root.to_owned()]) {
        collect(&hierarchy.join(&below), "", &mut found);
    }
    found
}

fn collect(folder: &Path, path: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.path().is_dir() {
            continue;
        }
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        found.insert(path.clone());
        collect(&entry.path(), &path, found);
    }
}

/// The mount points that a process sees.
fn mounts(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
        .collect()
}

/// Namespaces that a node's process holds by descriptors.
fn namespaces(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let held = links.filter_map(|link| {
        let link = link.to_string_lossy().into_owned();
        link.split_once(":[").map(|(kind, _)| kind.to_owned())
    });
    held.filter(|kind| ["net", "mnt", "pid", "ipc", "uts", "user", "cgroup"].contains(&kind.as_str()))
        .collect()
}

/// What a program says in the network namespace of a node.
fn inside(pid: u32, words: &[&str]) -> String {
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--net"]).args(words);
    succeed(command)
}

/// Lines without what changes by itself: the kernel's numbers, and how long an address is good for.
fn texts(output: &str) -> Vec<String> {
    let line = |line: &str| {
        let line = line
            .split_once(": ")
            .filter(|(number, _)| number.parse::<u32>().is_ok());
        line.map(|(_, rest)| rest.to_owned())
    };
    output
        .lines()
        .map(|text| line(text).unwrap_or_else(|| text.to_owned()))
        .map(|text| text.trim().trim_end_matches(" linkdown").to_owned())
        .filter(|text| !text.is_empty())
        .collect()
}

/// The names of links: `7: pod0123@if2: <…>`.
fn names(output: &str) -> Vec<String> {
    let name = |line: &str| {
        let name = line.split(": ").nth(1)?;
        Some(name.split('@').next().unwrap_or(name).to_owned())
    };
    output.lines().filter_map(name).collect()
}
