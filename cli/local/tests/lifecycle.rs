//! Clusters of placeholder nodes: what `flotilla local` does, without what Flotilla does.
//!
//! This program is both the test and the executable of every process of its clusters, which is why it has a `main`
//! of its own: a process has to become single-threaded `local enter` and `server` again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "Clippy knows tests by their attribute"
)]

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use flotilla_local::{
    Extent, LocalError, Place, RunState, UpOptions, down, enter, exec, heal, kill, partition, pause, resume,
    start, status, supervise, up,
};

const TESTS: &[(&str, fn())] = &[
    (
        "a_cluster_comes_up_and_leaves_nothing_behind",
        a_cluster_comes_up_and_leaves_nothing_behind,
    ),
    ("two_clusters_run_side_by_side", two_clusters_run_side_by_side),
    (
        "a_killed_process_leaves_its_children_and_a_killed_machine_does_not",
        kills,
    ),
    ("a_paused_node_stands_still", a_paused_node_stands_still),
    ("groups_of_a_partition_do_not_hear_each_other", partitions),
    (
        "a_node_that_ends_at_once_undoes_everything_and_shows_its_log",
        a_node_that_ends_at_once,
    ),
    ("the_api_goes_on_when_a_server_is_gone", the_api_goes_on),
    ("a_killed_supervisor_is_replaced", a_killed_supervisor_is_replaced),
];

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let text: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
    match text.as_slice() {
        ["local", "--name", _, "enter", pins, cgroup, "--", ..] => {
            fail(&enter(Path::new(pins), cgroup, &words[7..]))
        }
        ["local", "--name", name, "--dir", dir, "supervise"] => {
            fail(&supervise(&Place::new(name, Some(Path::new(dir))).unwrap()))
        }
        ["exec", name, dir, node, ..] => fail(&exec(
            &Place::new(name, Some(Path::new(dir))).unwrap(),
            node,
            &words[4..],
        )),
        ["server" | "agent", ..] => node(&text),
        ["child"] => loop {
            std::thread::park();
        },
        ["greet", address] => match greet(address) {
            Some(name) => {
                print!("{name}");
                ExitCode::SUCCESS
            }
            None => ExitCode::FAILURE,
        },
        _ => run_tests(&text),
    }
}

fn fail<T: std::fmt::Debug>(result: &Result<T, LocalError>) -> ExitCode {
    eprintln!("{result:?}");
    ExitCode::FAILURE
}

/// Speaks as much of the test programs' language as `cargo test` and `cargo nextest` need.
fn run_tests(words: &[&str]) -> ExitCode {
    if words.contains(&"--list") {
        if !words.contains(&"--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&&str> = words.iter().filter(|word| !word.starts_with('-')).collect();
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(**wanted)) {
            let started = Instant::now();
            test();
            println!("test {name} ... ok ({:?})", started.elapsed());
        }
    }
    ExitCode::SUCCESS
}

/// A placeholder node: a server leaves the files that are waited for and tells its name to whoever connects.
fn node(words: &[&str]) -> ExitCode {
    let flag = |name: &str| {
        words
            .iter()
            .position(|word| *word == name)
            .map(|at| words[at + 1])
    };
    let (name, data) = (
        flag("--name").unwrap(),
        PathBuf::from(flag("--data-dir").unwrap()),
    );
    if flag("--toleration-seconds") == Some("13") {
        println!("thirteen brings bad luck");
        return ExitCode::FAILURE;
    }
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(hostname.trim(), name);
    assert_eq!(
        fs::read_dir(flag("--run-dir").unwrap()).unwrap().count(),
        0,
        "the run folder is the node's own"
    );
    if let Some(token) = flag("--token-file") {
        assert_eq!(fs::read_to_string(token).unwrap(), "token");
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("child")
        .spawn()
        .unwrap();
    fs::write(data.join("child"), child.id().to_string()).unwrap();
    let listener = TcpListener::bind("0.0.0.0:6443").unwrap();
    if words[0] == "server" {
        fs::write(
            data.join("admin.kubeconfig"),
            r#"{"clusters":[{"cluster":{"server":"https://x"}}]}"#,
        )
        .unwrap();
        fs::write(data.join("agent-join-token"), "token").unwrap();
        fs::write(data.join("new"), "token").unwrap();
        fs::rename(data.join("new"), data.join("join-token")).unwrap();
    }
    for connection in listener.incoming() {
        let mut connection = connection.unwrap();
        // Only whoever has sent the whole record is answered, as by TLS.
        if connection.read_exact(&mut [0; HELLO.len()]).is_ok() {
            let _ = connection.write_all(name.as_bytes());
        }
    }
    child.wait().unwrap();
    ExitCode::SUCCESS
}

/// A record of TLS that begins a conversation, as far as the forwarder looks.
const HELLO: &[u8] = &[22, 3, 1, 0, 4, b'a', b'h', b'o', b'y'];

fn greet(address: &str) -> Option<String> {
    ask(address, Duration::from_millis(500))
}

fn ask(address: &str, limit: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), limit).ok()?;
    stream.set_read_timeout(Some(limit)).unwrap();
    // In two pieces, as the network may deliver it.
    stream.set_nodelay(true).unwrap();
    stream.write_all(&HELLO[..7]).ok()?;
    stream.write_all(&HELLO[7..]).ok()?;
    let mut name = String::new();
    stream.read_to_string(&mut name).ok()?;
    (!name.is_empty()).then_some(name)
}

struct Cluster {
    place: Place,
    name: String,
    dir: tempfile::TempDir,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        Self {
            place: Place::new(&name, Some(dir.path())).unwrap(),
            name,
            dir,
        }
    }

    fn options(servers: usize, agents: usize) -> UpOptions {
        UpOptions {
            servers,
            agents,
            executable: std::env::current_exe().unwrap(),
            toleration_seconds: None,
            load_balancer_pool: None,
            limit: Duration::from_secs(20),
        }
    }

    fn up(name: &str, servers: usize, agents: usize) -> Self {
        let cluster = Self::new(name);
        up(&cluster.place, &Self::options(servers, agents), |ready| {
            assert_eq!(ready.nodes.len(), servers + agents);
            ready.check()
        })
        .unwrap();
        for node in status(&cluster.place).unwrap().nodes {
            cluster.eventually(&format!("{} answers", node.name), || {
                cluster.hears(&node.name, &node.name)
            });
        }
        cluster
    }

    fn eventually(&self, what: &str, mut look: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !look() {
            assert!(
                Instant::now() < end,
                "not within 10 s: {what}\n{:?}",
                status(&self.place)
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Whether one node reaches another one over the network.
    fn hears(&self, from: &str, to: &str) -> bool {
        let nodes = status(&self.place).unwrap().nodes;
        let address = nodes.iter().find(|node| node.name == to).unwrap().address;
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new(&own);
        command
            .args(["exec", &self.name])
            .arg(self.dir.path())
            .arg(from)
            .arg(&own);
        let output = command
            .args(["greet", &format!("{address}:6443")])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        output.stdout == to.as_bytes()
    }

    fn state(&self, node: &str) -> RunState {
        status(&self.place)
            .unwrap()
            .nodes
            .iter()
            .find(|found| found.name == node)
            .unwrap()
            .state
    }

    fn pid(&self, node: &str) -> Option<i32> {
        status(&self.place)
            .unwrap()
            .nodes
            .iter()
            .find(|found| found.name == node)
            .unwrap()
            .pid
    }

    fn child(&self, node: &str) -> PathBuf {
        let pid = fs::read_to_string(self.place.data(node).join("child")).unwrap();
        PathBuf::from(format!("/proc/{pid}"))
    }

    /// What the forwarded port answers.
    fn api(&self) -> Option<String> {
        let address = status(&self.place).unwrap().server;
        ask(address.strip_prefix("https://").unwrap(), Duration::from_secs(5))
    }

    fn assert_gone(&self) {
        assert_eq!(
            fs::read_dir(self.dir.path()).unwrap().count(),
            0,
            "a file was left"
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.name), "a mount was left");
        for path in [
            format!("/run/flotilla/local/{}", self.name),
            format!("/run/flotilla/local/{}.lock", self.name),
        ] {
            assert!(!Path::new(&path).exists(), "{path} was left");
        }
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        for hierarchy in hierarchies {
            assert!(
                !hierarchy.path().join("flotilla-local").join(&self.name).exists(),
                "a cgroup was left"
            );
        }
        let links = fs::read_to_string("/proc/net/dev").unwrap();
        assert!(
            !links.contains("switch") && !links.contains("server-1"),
            "a link was left"
        );
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            assert!(
                !line.contains(&format!("\0{}\0", self.name)),
                "a process was left: {line}"
            );
            let own = process.file_name().to_string_lossy() == std::process::id().to_string();
            assert!(
                own || !line.contains(self.dir.path().to_str().unwrap()),
                "a process was left: {line}"
            );
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let gone = down(&self.place);
        if !std::thread::panicking() {
            gone.unwrap();
            self.assert_gone();
        }
    }
}

fn a_cluster_comes_up_and_leaves_nothing_behind() {
    let started = Instant::now();
    let cluster = Cluster::up("come", 3, 2);
    println!("up: {:?}", started.elapsed());
    let found = status(&cluster.place).unwrap();
    let names: Vec<&str> = found.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["server-1", "server-2", "server-3", "agent-1", "agent-2"]);
    assert!(found.nodes.iter().all(|node| node.state == RunState::Running));
    let kubeconfig = fs::read_to_string(cluster.place.kubeconfig()).unwrap();
    assert!(kubeconfig.contains(&found.server), "{kubeconfig}");
    assert_eq!(cluster.api().as_deref(), Some("server-1"));
    assert!(cluster.hears("agent-1", "server-2") && cluster.hears("agent-2", "agent-1"));
    let again = up(&cluster.place, &Cluster::options(1, 0), |_| Ok(()));
    assert!(matches!(again, Err(LocalError::Exists { .. })));
    assert_eq!(
        cluster.state("agent-1"),
        RunState::Running,
        "a second `up` harms nothing"
    );
    let unknown = kill(&cluster.place, "agent-9", Extent::Machine).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "there is no node \"agent-9\"; the nodes are server-1, server-2, server-3, agent-1, agent-2"
    );
    let started = Instant::now();
    assert!(down(&cluster.place).unwrap());
    println!("down: {:?}", started.elapsed());
    cluster.assert_gone();
    assert!(!down(&cluster.place).unwrap(), "nothing is left to remove");
    assert!(matches!(status(&cluster.place), Err(LocalError::Absent { .. })));
}

fn two_clusters_run_side_by_side() {
    let (one, other) = (Cluster::up("one", 1, 1), Cluster::up("other", 1, 1));
    assert!(one.hears("agent-1", "server-1") && other.hears("agent-1", "server-1"));
    kill(&one.place, "server-1", Extent::Machine).unwrap();
    assert!(!one.hears("agent-1", "server-1"));
    assert!(other.hears("agent-1", "server-1"));
    drop(one);
    assert!(other.hears("server-1", "agent-1"));
    assert_eq!(other.api().as_deref(), Some("server-1"));
}

fn kills() {
    let cluster = Cluster::up("kill", 1, 1);
    let (child, pid) = (cluster.child("agent-1"), cluster.pid("agent-1"));
    kill(&cluster.place, "agent-1", Extent::Process).unwrap();
    assert_eq!(cluster.state("agent-1"), RunState::Dead);
    assert!(child.exists(), "containers go on");
    assert!(matches!(
        kill(&cluster.place, "agent-1", Extent::Process),
        Err(LocalError::NotRunning { .. })
    ));
    start(&cluster.place, "agent-1").unwrap();
    assert!(matches!(
        start(&cluster.place, "agent-1"),
        Err(LocalError::Running { .. })
    ));
    cluster.eventually("it runs again", || cluster.hears("server-1", "agent-1"));
    assert_ne!(cluster.pid("agent-1"), pid);
    assert!(child.exists());
    let second = cluster.child("agent-1");
    fs::write(cluster.place.data("agent-1").join("kept"), "").unwrap();
    kill(&cluster.place, "agent-1", Extent::Machine).unwrap();
    cluster.eventually("all its processes are gone", || {
        !child.exists() && !second.exists()
    });
    assert_eq!(cluster.state("agent-1"), RunState::Dead);
    start(&cluster.place, "agent-1").unwrap();
    cluster.eventually("it runs again", || cluster.hears("server-1", "agent-1"));
    assert!(
        cluster.place.data("agent-1").join("kept").exists(),
        "the disk is kept"
    );
}

fn a_paused_node_stands_still() {
    let cluster = Cluster::up("pause", 1, 1);
    pause(&cluster.place, "agent-1").unwrap();
    assert_eq!(cluster.state("agent-1"), RunState::Paused);
    assert!(!cluster.hears("server-1", "agent-1"));
    resume(&cluster.place, "agent-1").unwrap();
    assert_eq!(cluster.state("agent-1"), RunState::Running);
    cluster.eventually("it answers again", || cluster.hears("server-1", "agent-1"));
    pause(&cluster.place, "agent-1").unwrap();
    kill(&cluster.place, "agent-1", Extent::Machine).unwrap();
    assert_eq!(
        cluster.state("agent-1"),
        RunState::Dead,
        "a frozen node can be killed"
    );
    assert!(matches!(
        pause(&cluster.place, "agent-1"),
        Err(LocalError::NotRunning { .. })
    ));
}

fn partitions() {
    let cluster = Cluster::up("part", 3, 1);
    let hears = |from: &str, to: &str| cluster.hears(from, to);
    // A neighbour that did not answer is asked again within a second.
    let will_hear =
        |from: &str, to: &str| cluster.eventually(&format!("{from} hears {to}"), || hears(from, to));
    assert!(matches!(
        partition(&cluster.place, "server-1"),
        Err(LocalError::Groups)
    ));
    assert!(matches!(
        partition(&cluster.place, "server-1|x"),
        Err(LocalError::UnknownNode { .. })
    ));
    partition(&cluster.place, "server-1|server-2,server-3").unwrap();
    assert!(!hears("server-1", "server-2") && !hears("server-3", "server-1"));
    will_hear("server-2", "server-3");
    // Nodes in no group hear everyone.
    will_hear("agent-1", "server-1");
    will_hear("server-2", "agent-1");
    // A new partition replaces the old one.
    partition(&cluster.place, "server-1,server-2|server-3").unwrap();
    will_hear("server-1", "server-2");
    assert!(!hears("server-2", "server-3"));
    kill(&cluster.place, "server-3", Extent::Machine).unwrap();
    start(&cluster.place, "server-3").unwrap();
    will_hear("server-3", "server-3");
    assert!(
        !hears("server-3", "server-1"),
        "a reboot does not mend the network"
    );
    heal(&cluster.place).unwrap();
    heal(&cluster.place).unwrap();
    will_hear("server-2", "server-3");
    will_hear("server-3", "server-1");
}

fn a_node_that_ends_at_once() {
    let cluster = Cluster::new("bad");
    let options = UpOptions {
        toleration_seconds: Some(13),
        ..Cluster::options(1, 1)
    };
    let error = up(&cluster.place, &options, |_| Ok(())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "server-1 ended while the cluster was starting; the end of its log:\nthirteen brings bad luck"
    );
    cluster.assert_gone();
    let error = up(&cluster.place, &Cluster::options(1, 0), |_| {
        Err(LocalError::NotReady("late".into()))
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "late");
    cluster.assert_gone();
}

fn the_api_goes_on() {
    let cluster = Cluster::up("api", 3, 0);
    assert_eq!(cluster.api().as_deref(), Some("server-1"));
    kill(&cluster.place, "server-1", Extent::Process).unwrap();
    assert_eq!(cluster.api().as_deref(), Some("server-2"));
    kill(&cluster.place, "server-2", Extent::Machine).unwrap();
    cluster.eventually("the third answers", || {
        cluster.api().as_deref() == Some("server-3")
    });
    start(&cluster.place, "server-1").unwrap();
    assert_eq!(
        cluster.api().as_deref(),
        Some("server-3"),
        "the last good one stays"
    );
    pause(&cluster.place, "server-3").unwrap();
    cluster.eventually("server-1 runs again", || cluster.hears("server-1", "server-1"));
    assert_eq!(
        cluster.api().as_deref(),
        Some("server-1"),
        "a frozen server accepts but does not answer"
    );
}

fn a_killed_supervisor_is_replaced() {
    let cluster = Cluster::up("super", 1, 1);
    let before = status(&cluster.place).unwrap().server;
    let run = PathBuf::from(format!("/run/flotilla/local/{}", cluster.name));
    let pid = fs::read_to_string(run.join("supervisor.pid")).unwrap();
    let pid = pid.split(' ').next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    cluster.eventually("the port is closed", || cluster.api().is_none());
    assert!(cluster.hears("agent-1", "server-1"), "the nodes go on");
    kill(&cluster.place, "agent-1", Extent::Process).unwrap();
    start(&cluster.place, "agent-1").unwrap();
    assert_eq!(status(&cluster.place).unwrap().server, before, "on the same port");
    assert_eq!(cluster.api().as_deref(), Some("server-1"));
}
