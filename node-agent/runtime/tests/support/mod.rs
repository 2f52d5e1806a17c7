//! A node for tests: folders of its own, a cgroup of its own, an image of one static program.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flotilla_runtime::{
    ContainerSpec, ContainerState, ExecSpec, Exit, Options, Pod, Runtime, SandboxSpec, logs,
};
use tokio::io::AsyncReadExt;

pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_flotilla-runtime-helper");

/// Far above what anything here takes, so that only what hangs runs into it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How often a condition is looked at that nothing tells of.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

static NODES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    /// Where sandboxes are kept.
    pub(crate) run_dir: PathBuf,
    pub(crate) cgroup: String,
    pub(crate) runtime: Runtime,
}

impl Node {
    pub(crate) fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        Node::with_folders(dir, run_dir)
    }

    /// A node that keeps its sandboxes in `run_dir`.
    pub(crate) fn with_folders(dir: tempfile::TempDir, run_dir: PathBuf) -> Node {
        let layer = dir.path().join("layer");
        for folder in ["bin", "etc", "tmp", "secret"] {
            fs::create_dir_all(layer.join(folder)).unwrap();
        }
        fs::hard_link(HELPER, layer.join("bin/helper"))
            .or_else(|_| fs::copy(HELPER, layer.join("bin/helper")).map(drop))
            .unwrap();
        fs::write(layer.join("bin/not-executable"), "").unwrap();
        fs::write(layer.join("bin/not-a-program"), "nonsense").unwrap();
        set_mode(&layer.join("bin/not-a-program"), 0o755);
        set_mode(&layer.join("secret"), 0o700);
        fs::write(
            layer.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\n",
        )
        .unwrap();
        let cgroup = format!(
            "/flotilla-test-{}-{}",
            std::process::id(),
            NODES.fetch_add(1, Ordering::Relaxed)
        );
        let runtime = open_with_run_dir(dir.path(), run_dir.clone(), &cgroup);
        Node {
            dir,
            run_dir,
            cgroup,
            runtime,
        }
    }

    /// What a second agent on this node would have.
    pub(crate) fn another_runtime(&self) -> Runtime {
        self.runtime_at(self.run_dir.clone())
    }

    /// A runtime that keeps its sandboxes elsewhere.
    pub(crate) fn runtime_at(&self, run_dir: PathBuf) -> Runtime {
        open_with_run_dir(self.dir.path(), run_dir, &self.cgroup)
    }

    pub(crate) async fn pod(&self, uid: &str) -> Pod {
        self.runtime.run_sandbox(self.sandbox(uid)).await.unwrap()
    }

    pub(crate) fn sandbox(&self, uid: &str) -> SandboxSpec {
        SandboxSpec {
            uid: uid.to_owned(),
            namespace: "default".to_owned(),
            name: uid.to_owned(),
            hostname: format!("host-{uid}"),
            log_dir: self.dir.path().join("logs").join(uid),
            ..SandboxSpec::default()
        }
    }

    pub(crate) fn container(&self, pod: &Pod, name: &str, args: &[&str]) -> ContainerSpec {
        ContainerSpec {
            id: format!("{name}-0"),
            name: name.to_owned(),
            attempt: 0,
            lower_dirs: vec![self.dir.path().join("layer")],
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            log_path: logs::path(&pod.spec().log_dir, name, 0),
            ..ContainerSpec::default()
        }
    }

    /// Starts a container and waits for its end; returns its exit and its log without times.
    pub(crate) async fn run(&self, pod: &Pod, spec: ContainerSpec) -> (Exit, String) {
        let (id, path) = (spec.id.clone(), spec.log_path.clone());
        pod.start_container(spec).await.unwrap();
        let exit = ended(pod, &id).await;
        (exit, log(&path))
    }

    /// Cgroups, mounts and files of this node's pods that still exist.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let dir = self.dir.path();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let run_dir = self.run_dir.join("pods");
        let below = format!("{}/", run_dir.display());
        let mut found: Vec<String> = mounts
            .lines()
            .filter(|line| line.contains(&below))
            .map(str::to_owned)
            .collect();
        for folder in [run_dir, dir.join("state")] {
            found.extend(
                fs::read_dir(folder)
                    .unwrap()
                    .map(|entry| entry.unwrap().path().display().to_string()),
            );
        }
        for hierarchy in self.cgroup_folders() {
            let entries = fs::read_dir(hierarchy).into_iter().flatten().flatten();
            let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
            found.extend(folders.flat_map(|entry| pods_in(&entry.path())));
        }
        let marker = self.run_dir.display().to_string();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            if command.contains(&marker) {
                found.push(command);
            }
        }
        found
    }

    /// A file in a cgroup of this node, wherever it is; below the node's own.
    pub(crate) fn cgroup_file(&self, cgroup: &str, file: &str) -> String {
        let mut paths = self
            .cgroup_folders()
            .into_iter()
            .map(|folder| folder.join(cgroup).join(file));
        let path = paths.find(|path| path.exists()).unwrap();
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// Of a limit on v1 and on v2, that which this machine has.
    pub(crate) fn by_version<'a>(&self, v1: &'a str, v2: &'a str) -> &'a str {
        // Only the root of the v2 tree alone has this file there.
        let is_unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        if is_unified { v2 } else { v1 }
    }

    /// A limit's file in a cgroup of this node, by its names on v1 and on v2.
    pub(crate) fn limit(&self, cgroup: &str, v1: &str, v2: &str) -> String {
        self.cgroup_file(cgroup, self.by_version(v1, v2))
    }

    /// The processes in the cgroup of a container.
    pub(crate) fn processes(&self, container: &str) -> Vec<i32> {
        let mut found = Vec::new();
        self.cgroup_folders()
            .iter()
            .for_each(|folder| collect_processes(folder, container, &mut found));
        found.sort_unstable();
        found.dedup();
        found
    }

    fn cgroup_folders(&self) -> Vec<PathBuf> {
        let name = self.cgroup.trim_start_matches('/');
        let roots = fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|entry| entry.path().join(name));
        roots
            .chain([Path::new("/sys/fs/cgroup").join(name)])
            .filter(|folder| folder.exists())
            .collect()
    }
}

/// A test that fails midway leaves nothing either.
impl Drop for Node {
    fn drop(&mut self) {
        let marker = self.run_dir.display().to_string();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            if command.starts_with("flotilla\0shim\0") && command.contains(&marker) {
                kill_process(&process.file_name().to_string_lossy());
            }
        }
        for folder in self.cgroup_folders() {
            remove_cgroup(&folder);
        }
        self.runtime.close().ok();
    }
}

/// A pod's cgroup, or those in the cgroup of a class of service, which stays.
fn pods_in(folder: &Path) -> Vec<String> {
    if !folder.ends_with("burstable") && !folder.ends_with("besteffort") {
        return vec![folder.display().to_string()];
    }
    let entries = fs::read_dir(folder).unwrap().flatten();
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    folders.map(|entry| entry.path().display().to_string()).collect()
}

fn collect_processes(folder: &Path, container: &str, found: &mut Vec<i32>) {
    for child in fs::read_dir(folder).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&child.path(), container, found);
        }
    }
    if folder.ends_with(container) {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().map(|line| line.parse::<i32>().unwrap()));
    }
}

fn remove_cgroup(folder: &Path) {
    for child in fs::read_dir(folder).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&child.path());
        }
    }
    let begun = Instant::now();
    while fs::remove_dir(folder).is_err() && folder.exists() && begun.elapsed() < LIMIT {
        fs::read_to_string(folder.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
            .for_each(kill_process);
        std::thread::yield_now();
    }
}

fn kill_process(pid: &str) {
    let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
}

fn open_with_run_dir(dir: &Path, run_dir: PathBuf, cgroup: &str) -> Runtime {
    Runtime::new(Options {
        state_dir: dir.join("state"),
        run_dir,
        volumes_dir: Some(dir.join("volumes")),
        cgroup_parent: cgroup.to_owned(),
        executable: PathBuf::from(HELPER),
        seccomp_profiles: dir.join("profiles"),
    })
    .unwrap()
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

pub(crate) fn find(pod: &Pod, id: &str) -> Option<ContainerState> {
    pod.containers().into_iter().find(|state| state.id == id)
}

/// Waits until the container has ended.
pub(crate) async fn ended(pod: &Pod, id: &str) -> Exit {
    let mut exits = pod.exits();
    let wait = async {
        loop {
            if let Some(exit) = find(pod, id).and_then(|state| state.finished) {
                return exit;
            }
            exits.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, wait)
        .await
        .expect("the container should have ended")
}

/// Waits until something that has no notification has become true.
pub(crate) async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let wait = async {
        while !is_true() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, wait)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// A container's log without its times.
pub(crate) fn log(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| line.split_once(' ').unwrap().1.to_owned() + "\n")
        .collect()
}

/// Runs a program in a container; returns what it has written to stdout.
pub(crate) async fn run_in(pod: &Pod, container: &str, args: &[&str]) -> String {
    let spec = ExecSpec {
        container: container.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        stdout: true,
        ..ExecSpec::default()
    };
    let mut text = String::new();
    let mut exec = pod.exec(spec).await.unwrap();
    exec.stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    text
}
