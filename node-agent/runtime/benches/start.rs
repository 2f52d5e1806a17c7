//! Latency of a pod's start: sandbox, then create and start of its container; and the same container's create and start
//! by Debian's `runc` and `crun` where they are installed. All in turn, 200 times, so that all meet the same machine.
//!
//! `cargo bench -p flotilla-runtime` (as root). Ours mounts the image's layers and loads the default seccomp filter as
//! well; the others get a ready root and no filter. What all of them keep of a container for as long as it runs is in
//! memory, as everything below `/run` is; layers and roots are on a disk. It also tells how much memory a shim has.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, a benchmark prints"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flotilla_runtime::Seccomp;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use support::{Node, ended};

const ROUNDS: usize = 200;
const MEMORY: &str = "/dev/shm";
const DISK_BYTES: u64 = 1 << 30;

fn main() {
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(measure());
}

/// A file system as nodes have it: one without a journal (cloud machines have such) looks at every inode that was
/// deleted in the last minutes before it makes a new one, and what is deleted here would be measured with what is made.
struct Disk {
    mount: PathBuf,
    _folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Disk {
        let folder = tempfile::tempdir().unwrap();
        let (image, mount) = (folder.path().join("image"), folder.path().join("disk"));
        fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        fs::create_dir(&mount).unwrap();
        succeed(Command::new("mkfs.ext4").arg("-q").arg(&image));
        succeed(Command::new("mount").args(["-o", "loop"]).args([&image, &mount]));
        Disk {
            mount,
            _folder: folder,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(&self.mount, MntFlags::MNT_DETACH).ok();
    }
}

fn succeed(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?} failed");
}

#[derive(Default)]
struct Times {
    rows: Vec<(&'static str, Vec<Duration>)>,
}

impl Times {
    fn add(&mut self, name: &'static str, time: Duration) {
        match self.rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => times.push(time),
            None => self.rows.push((name, vec![time])),
        }
    }

    fn print(mut self) {
        for (name, times) in &mut self.rows {
            times.sort_unstable();
            let of = |share: usize| times[times.len() * share / 100];
            println!("{name:24} median {:>9.2?}  p99 {:>9.2?}", of(50), of(99));
        }
    }
}

async fn measure() {
    let run = tempfile::tempdir_in(MEMORY).unwrap();
    let disk = Disk::new();
    let node = Node::with_folders(
        tempfile::tempdir_in(&disk.mount).unwrap(),
        run.path().join("flotilla"),
    );
    let mut times = Times::default();
    let bundle = bundle(&node).await;
    let others = Others::new(bundle.clone(), run.path().to_owned());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let pod = node.pod(&format!("p{round}")).await;
        times.add("sandbox", begun.elapsed());
        for (name, title, seccomp) in [
            ("c", "create+start", Seccomp::RuntimeDefault),
            ("d", "  the same, unconfined", Seccomp::Unconfined),
        ] {
            let mut spec = node.container(&pod, name, &["helper", "exit", "0"]);
            spec.seccomp = seccomp;
            let begun = Instant::now();
            pod.start_container(spec).await.unwrap();
            times.add(title, begun.elapsed());
            ended(&pod, &format!("{name}-0")).await;
        }
        if round == 0 {
            print_memory(pod.shim_pid().unwrap());
        }
        let begun = Instant::now();
        pod.destroy().await.unwrap();
        times.add("destroy", begun.elapsed());
        for runtime in ["runc", "crun"] {
            if let Some(time) = others.ask(runtime) {
                times.add(runtime, time);
            }
        }
    }
    times.print();
    fs::remove_dir_all(&bundle).unwrap();
    remove_cgroups(&others_cgroup(&node));
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// What a shim holds of memory once containers have run: by itself, and with its part of what others have as well.
fn print_memory(shim: i32) {
    let text = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    for (name, size) in lines.filter(|(name, _)| ["Rss", "Pss", "Anonymous"].contains(name)) {
        println!("shim {name:13} {:>9}", size.trim());
    }
}

/// What our container is made from, for others: its root ready, without the pod's namespaces.
async fn bundle(node: &Node) -> PathBuf {
    let pod = node.pod("model").await;
    pod.start_container(node.container(&pod, "c", &["helper", "exit", "0"]))
        .await
        .unwrap();
    ended(&pod, "c-0").await;
    let config = node.run_dir.join("pods/model/containers/c-0/config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    pod.destroy().await.unwrap();
    let bundle = node.dir.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    spec["root"]["path"] = json!(node.dir.path().join("layer"));
    spec["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}]);
    spec["linux"]["cgroupsPath"] = json!(format!("{}/c", others_cgroup(node)));
    let mounts = spec["mounts"].as_array_mut().unwrap();
    // It was the pod's, which is gone.
    mounts.retain(|mount| mount["destination"] != "/dev/shm");
    fs::write(bundle.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    bundle
}

fn others_cgroup(node: &Node) -> String {
    format!("{}-others", node.cgroup)
}

/// Removes what other runtimes leave of the path that they were given.
fn remove_cgroups(cgroup: &str) {
    let trees = fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    for tree in trees.chain([PathBuf::from("/sys/fs/cgroup")]) {
        // It is not in every folder there.
        fs::remove_dir(tree.join(cgroup.trim_start_matches('/'))).ok();
    }
}

/// A thread that runs other runtimes, with mounts of its own: `crun` works on no machine that has a v2 tree beside the
/// v1 ones, so here it does not.
struct Others {
    asks: mpsc::Sender<&'static str>,
    answers: mpsc::Receiver<Option<Duration>>,
}

impl Others {
    fn new(bundle: PathBuf, dir: PathBuf) -> Others {
        let (asks, asked) = mpsc::channel::<&'static str>();
        let (answer, answers) = mpsc::channel();
        std::thread::spawn(move || {
            let none = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            // Elsewhere there is none.
            umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH).ok();
            for (round, runtime) in asked.into_iter().enumerate() {
                answer.send(by_other(runtime, &bundle, &dir, round)).unwrap();
            }
        });
        Others { asks, answers }
    }

    fn ask(&self, runtime: &'static str) -> Option<Duration> {
        self.asks.send(runtime).unwrap();
        self.answers.recv().unwrap()
    }
}

/// Create and start by another runtime; `None` when it is not installed.
fn by_other(runtime: &str, bundle: &Path, dir: &Path, round: usize) -> Option<Duration> {
    let id = format!("flotilla-bench-{}-{round}", std::process::id());
    // Not to be looked for each time.
    let program = ["/usr/sbin", "/usr/bin"]
        .map(|folder| Path::new(folder).join(runtime))
        .into_iter()
        .find(|program| program.exists())?;
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command
            .arg("--root")
            .arg(dir.join(runtime))
            .args(args)
            .current_dir(bundle);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.status()
    };
    let begun = Instant::now();
    let created = run(&["create", &id]).unwrap();
    assert!(created.success(), "{runtime} create failed");
    assert!(run(&["start", &id]).unwrap().success(), "{runtime} start failed");
    let time = begun.elapsed();
    assert!(run(&["delete", "--force", &id]).unwrap().success());
    Some(time)
}
