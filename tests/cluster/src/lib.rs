//! Real clusters on this machine, for end-to-end tests and benchmarks.
//!
//! A [`Cluster`] is what `flotilla local up` makes, in a folder of its own; dropping it removes all of it. It is
//! driven only as a user would: by the `flotilla` binary, by kubectl, and by killing processes.

pub mod dice;
pub mod processes;
pub mod store;
pub mod traces;

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A cluster of `flotilla local`.
pub struct Cluster {
    name: String,
    folder: TempDir,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Brings a cluster up; all its nodes are ready.
    pub fn up(servers: u32, agents: u32) -> Self {
        Self::up_with(servers, agents, &[])
    }

    /// The same, with further flags for `flotilla local up`.
    pub fn up_with(servers: u32, agents: u32, flags: &[&str]) -> Self {
        Self::up_on(servers, agents, flags, |_| {})
    }

    /// The same, on what `prepare` makes of the folder in which each node will have one of its name.
    pub fn up_on(servers: u32, agents: u32, flags: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{number}", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix("flotilla-test")
            .tempdir()
            .expect("a folder can be made");
        let mut cluster = Self {
            name,
            kubeconfig: PathBuf::new(),
            folder,
        };
        prepare(&cluster.folder().join(&cluster.name));
        let (servers, agents) = (servers.to_string(), agents.to_string());
        let mut words = vec!["up", "--servers", &servers, "--agents", &agents];
        words.extend(flags);
        cluster.local(&words);
        cluster.kubeconfig = PathBuf::from(cluster.local(&["kubeconfig"]).trim());
        cluster
    }

    /// `flotilla local WORDS…` for this cluster; its output.
    pub fn local(&self, words: &[&str]) -> String {
        succeed(self.local_command(words))
    }

    /// `flotilla local WORDS…` for this cluster, to be run.
    pub fn local_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(flotilla_binary());
        command
            .args(["local", "--name", &self.name, "--dir"])
            .arg(self.folder.path())
            .args(words);
        command
    }

    /// The cluster's name, which is in the names of its namespaces and cgroups.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder that holds all the cluster's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `flotilla local status -o json` says.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.local(&["status", "-o", "json"])).expect("the status is JSON")
    }

    /// The process of a node.
    pub fn pid(&self, node: &str) -> u32 {
        let status = self.status();
        let nodes = status["nodes"].as_array().expect("the status lists nodes");
        let found = nodes
            .iter()
            .find(|found| found["name"] == node)
            .expect("the node is there");
        u32::try_from(found["pid"].as_u64().expect("a node has a process")).expect("a pid is small")
    }

    /// Sends SIGKILL to the process of a node, and waits until the last of its threads has ended: until then it counts
    /// as running. What it has started goes on.
    pub fn kill_process(&self, node: &str) {
        let pid = self.pid(node);
        let begun = process_start(pid);
        let mut kill = Command::new("kill");
        kill.args(["-KILL", &pid.to_string()]);
        succeed(kill);
        eventually("the killed process has ended", Duration::from_secs(30), || {
            (process_start(pid) != begun).then_some(())
        });
    }

    /// `flotilla WORDS…`; its output.
    pub fn flotilla(&self, words: &[&str]) -> String {
        succeed(self.command(flotilla_binary(), words))
    }

    /// `flotilla WORDS…`, which may fail.
    pub fn try_flotilla(&self, words: &[&str]) -> Output {
        self.command(flotilla_binary(), words)
            .output()
            .expect("the binary can be run")
    }

    /// `flotilla WORDS…` that is given `input`, and may fail.
    pub fn flotilla_with_input(&self, words: &[&str], input: &str) -> Output {
        with_input(self.command(flotilla_binary(), words), input)
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> String {
        let output = self.flotilla_with_input(&["apply", "-f", "-"], manifest);
        assert!(output.status.success(), "cannot apply: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// A client with this cluster's kubeconfig.
    pub fn command(&self, program: impl AsRef<OsStr>, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.folder.path())
            .args(words);
        command
    }

    /// What `flotilla get WORDS… -o json` answers.
    pub fn get(&self, words: &[&str]) -> Value {
        let mut all = vec!["get"];
        all.extend(words);
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.flotilla(&all)).expect("the answer is JSON")
    }

    /// The pods that a label selector names.
    pub fn pods(&self, selector: &str) -> Vec<Value> {
        self.get(&["pods", "-l", selector])["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until `count` pods of the selector are ready and no others are left; returns them.
    pub fn ready_pods(&self, selector: &str, count: usize, limit: Duration) -> Vec<Value> {
        eventually(&format!("{count} pods of {selector} are ready"), limit, || {
            let pods = self.pods(selector);
            (pods.len() == count && pods.iter().all(is_ready)).then_some(pods)
        })
    }

    /// What a pod answers over HTTP, through the API server.
    pub fn fetch(&self, pod: &str, port: u16, path: &str) -> String {
        self.flotilla(&[
            "get",
            "--raw",
            &format!("/api/v1/namespaces/default/pods/{pod}:{port}/proxy{path}"),
        ])
    }

    /// Imports an image of `deploy/images/build` (busybox, nginx, redis or postgres) on every node.
    pub fn import_image(&self, name: &str) {
        let archive = image_archive(name);
        let archive = archive.to_str().expect("the tree's path is text");
        let status = self.status();
        let nodes = status["nodes"].as_array().expect("the status lists nodes");
        for node in nodes {
            let node = node["name"].as_str().expect("nodes have names");
            self.image(node, &["import", archive]);
        }
    }

    /// `flotilla image WORDS…` on one node; its output.
    pub fn image(&self, node: &str, words: &[&str]) -> String {
        let data = self.data_dir(node);
        let mut all = vec![
            "image",
            "--data-dir",
            data.to_str().expect("the folder's path is text"),
        ];
        all.extend(words);
        self.flotilla(&all)
    }

    /// The data folder of a node's agent.
    pub fn data_dir(&self, node: &str) -> PathBuf {
        let folder = self.folder().join(&self.name).join(node);
        let of_server = folder.join("agent");
        if of_server.is_dir() { of_server } else { folder }
    }

    /// The node whose server leads, as the servers themselves say.
    pub fn leader(&self) -> String {
        eventually("the status names the leader", Duration::from_secs(10), || {
            self.status()["leader"].as_str().map(str::to_owned)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let output = self
            .local_command(&["down"])
            .output()
            .expect("the binary can be run");
        if std::thread::panicking() {
            return;
        }
        assert!(
            output.status.success(),
            "cannot take the cluster down: {}",
            text(&output.stderr)
        );
    }
}

/// Looks until there is an answer; fails when there is none within the limit.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::park_timeout(LOOK_INTERVAL);
    }
}

/// Whether a pod's Ready condition holds and it is not on its way out.
pub fn is_ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && condition(pod, "Ready") == Some("True")
}

/// The status of an object's condition.
pub fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == name)?["status"].as_str()
}

/// An object's name.
pub fn name_of(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .expect("objects have names")
        .to_owned()
}

/// Runs a command that must succeed; its standard output.
pub fn succeed(mut command: Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the program can be run");
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn with_input(mut command: Command, input: &str) -> Output {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be run");
    let mut pipe = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_owned();
    // Beside the reading of the output, so that neither waits for the other; a program that does not read is its own affair.
    let writer = std::thread::spawn(move || drop(pipe.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("the writer does not panic");
    output
}

/// Bytes of a program's output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The root of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate is two folders deep")
        .to_owned()
}

/// The release binary, which `deploy/test` builds first.
pub fn flotilla_binary() -> PathBuf {
    let binary = root().join("target/x86_64-unknown-linux-gnu/release/flotilla");
    assert!(
        binary.exists(),
        "{} is not there: cargo build --release -p flotilla",
        binary.display()
    );
    binary
}

/// An image archive that `deploy/images/build` makes.
pub fn image_archive(name: &str) -> PathBuf {
    let archive = root().join("target/images").join(name).with_extension("tar");
    assert!(
        archive.exists(),
        "{} is not there: deploy/images/build makes it",
        archive.display()
    );
    archive
}

/// Every kubectl there is: Debian's, which `deploy/test` fetches, and one in the `PATH`.
pub fn kubectls() -> Vec<PathBuf> {
    let debian = root().join("target/tools/kubernetes-client/usr/bin/kubectl");
    assert!(
        debian.exists(),
        "{} is not there: deploy/tools fetches it",
        debian.display()
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    let newer = std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .find(|program| program.exists());
    std::iter::once(debian).chain(newer).collect()
}

/// The start time of a process in clock ticks since boot: with the pid, its identity.
pub fn process_start(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(19).map(str::to_owned)
}
