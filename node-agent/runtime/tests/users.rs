//! Pods with users of their own (`hostUsers: false`): root inside, nobody on the node.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use flotilla_runtime::{
    AttachSpec, ContainerSpec, ExecSpec, Mount, MountKind, PidNamespace, Pod, RunSandboxError, SandboxSpec,
    User,
};
use support::{Node, ended, eventually, log, run_in, set_mode};
use tokio::io::AsyncWriteExt;

const FIRST: u32 = 0x7000_0000;

async fn sandbox(node: &Node, uid: &str, change: impl FnOnce(&mut SandboxSpec)) -> Pod {
    let mut spec = node.sandbox(uid);
    spec.user_namespace = true;
    change(&mut spec);
    node.runtime.run_sandbox(spec).await.unwrap()
}

/// The user of a process, as the node sees it.
fn user_of(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn bind(source: &Path, destination: &str) -> Mount {
    Mount {
        source: source.to_owned(),
        destination: destination.into(),
        ..Mount::default()
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

#[tokio::test(flavor = "multi_thread")]
async fn root_is_root_inside_and_nobody_on_the_node() {
    let node = Node::new();
    let (first, second) = (
        sandbox(&node, "p", |_| {}).await,
        sandbox(&node, "q", |_| {}).await,
    );
    let volume = node.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    set_mode(&volume, 0o755);
    let hosts = node.dir.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost").unwrap();
    let mut spec = node.container(&first, "main", &["helper", "pause"]);
    spec.mounts = vec![bind(&volume, "/data"), bind(&hosts, "/etc/hosts")];
    spec.cwd = "/srv/work".to_owned();
    let started = first.start_container(spec).await.unwrap();
    assert_eq!(user_of(started.pid), FIRST, "and a multiple of 65536");
    let map = fs::read_to_string(format!("/proc/{}/uid_map", started.pid)).unwrap();
    let words: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(words, ["0", &FIRST.to_string(), "65536"]);

    let others = second
        .start_container(node.container(&second, "main", &["helper", "pause"]))
        .await
        .unwrap();
    assert_eq!(user_of(others.pid), FIRST + 65_536, "no two pods share users");

    // A program that is executed later has the same users, not the node's.
    let text = run_in(&first, "main-0", &["helper", "users"]).await;
    assert_eq!(text, format!("0 {FIRST} 65536\n"));
    let text = run_in(&first, "main-0", &["helper", "identity"]).await;
    assert!(
        text.contains("user 0 0 []") && text.contains("cwd /srv/work"),
        "{text}"
    );
    let paths = [
        "/bin/helper",
        "/data",
        "/etc/hosts",
        "/srv/work",
        "/",
        "/dev/shm",
        "/proc/self",
        "/dev/pts/ptmx",
    ];
    let text = run_in(
        &first,
        "main-0",
        &[&["helper", "owners"][..], &paths[..]].concat(),
    )
    .await;
    let expected: String = paths.iter().map(|path| format!("{path} 0:0\n")).collect();
    assert_eq!(text, expected);

    let made = ["/data/file", "/tmp/file", "/etc/hosts", "/dev/shm/file"];
    let text = run_in(&first, "main-0", &[&["helper", "own"][..], &made[..]].concat()).await;
    let expected: String = made.iter().map(|path| format!("{path}: done\n")).collect();
    assert_eq!(text, expected);
    // A volume outlives the pod and its users: on disk it has the ids that the pod uses.
    assert_eq!(owner(&volume.join("file")), (33, 34));
    assert_eq!(owner(&hosts), (33, 34));
    let upper = node.dir.path().join("state/p/main-0/upper");
    assert_eq!(owner(&upper.join("tmp/file")), (FIRST + 33, FIRST + 34));
    for pod in [first, second] {
        pod.destroy().await.unwrap();
    }
    let third = sandbox(&node, "r", |_| {}).await;
    let again = third
        .start_container(node.container(&third, "main", &["helper", "pause"]))
        .await
        .unwrap();
    assert_eq!(user_of(again.pid), FIRST, "free again");
    third.kill("main-0", libc::SIGKILL).await.unwrap();
    assert_eq!(ended(&third, "main-0").await.code, 137);
    third.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_roots_rights_in_the_pod_works() {
    let node = Node::new();
    let pod = sandbox(&node, "p", |spec| {
        spec.pids = PidNamespace::Pod;
        spec.sysctls = [
            ("net.ipv4.tcp_keepalive_time".to_owned(), "77".to_owned()),
            ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
        ]
        .into();
    })
    .await;
    let mut spec = node.container(&pod, "main", &["helper", "listen", "80"]);
    spec.no_new_privileges = true;
    spec.read_only_rootfs = true;
    spec.mounts = vec![Mount {
        destination: "/cache".into(),
        kind: MountKind::Tmpfs,
        ..Mount::default()
    }];
    let path = spec.log_path.clone();
    pod.start_container(spec).await.unwrap();
    eventually("it listens on a port of root's", || log(&path).contains("ready")).await;
    let text = run_in(&pod, "main-0", &["helper", "own", "/cache/x", "/tmp/x"]).await;
    assert_eq!(
        text,
        "/cache/x: done\n/tmp/x: read-only filesystem or storage medium\n"
    );
    for (name, args, expected) in [
        (
            "a",
            &["helper", "read", "/proc/sys/net/ipv4/tcp_keepalive_time"][..],
            "stdout F 77\n",
        ),
        (
            "b",
            &["helper", "read", "/proc/sys/kernel/shm_rmid_forced"],
            "stdout F 1\n",
        ),
        ("c", &["helper", "connect", "80"], "stdout F host-p host-p\n"),
    ] {
        let (_, text) = node.run(&pod, node.container(&pod, name, args)).await;
        assert_eq!(text, expected);
    }
    let (_, text) = node
        .run(&pod, node.container(&pod, "second", &["helper", "processes"]))
        .await;
    assert!(
        text.contains("F 1 pause") && text.contains("helper listen"),
        "{text}"
    );

    // Users other than root, their pipes by name, and the seccomp filter.
    let mut spec = node.container(&pod, "web", &["helper", "own", "/dev/stdout"]);
    spec.user = User {
        uid: 33,
        gid: 33,
        additional_gids: vec![7],
    };
    let (_, text) = node.run(&pod, spec.clone()).await;
    assert!(
        text.contains("Fx/dev/stdout: ") || text.contains("F x/dev/stdout: "),
        "it was opened: {text}"
    );
    spec.args = ["helper", "calls"].map(str::to_owned).into();
    spec.id = "calls-0".to_owned();
    let (_, text) = node.run(&pod, spec).await;
    assert!(
        text.contains("unshare EPERM") && text.contains("Seccomp: 2"),
        "{text}"
    );
    assert_eq!(pod.spec().hostname, "host-p");
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_belong_to_the_pods_root() {
    let node = Node::new();
    let pod = sandbox(&node, "p", |_| {}).await;
    let mut spec = node.container(&pod, "main", &["helper", "terminal"]);
    spec.terminal = true;
    pod.start_container(spec).await.unwrap();
    let mut exec = pod
        .exec(ExecSpec {
            container: "main-0".to_owned(),
            args: ["helper", "terminal"].map(str::to_owned).into(),
            tty: true,
            stdin: true,
            stdout: true,
            ..ExecSpec::default()
        })
        .await
        .unwrap();
    exec.stdin.as_mut().unwrap().write_all(b"quit\n").await.unwrap();
    assert_eq!(exec.wait().await.unwrap().code, 9);
    let attach = AttachSpec {
        stdin: true,
        ..AttachSpec::default()
    };
    let mut attached = pod.attach("main-0", attach).await.unwrap();
    attached
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"quit\n")
        .await
        .unwrap();
    assert_eq!(ended(&pod, "main-0").await.code, 9);
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_memory_limit_kills_it() {
    let node = Node::new();
    let pod = sandbox(&node, "p", |_| {}).await;
    let mut spec = node.container(&pod, "main", &["helper", "eat", "512"]);
    spec.resources.memory_limit = Some(64 << 20);
    let (exit, _) = node.run(&pod, spec).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// Everything that may be asked for, and a process of the container tries what only the node's root may do.
#[tokio::test(flavor = "multi_thread")]
async fn a_privileged_root_is_still_nobody_on_the_node() {
    let node = Node::new();
    let pod = sandbox(&node, "p", |_| {}).await;
    let mut spec = node.container(&pod, "main", &["helper", "escape", "/dev/null", "/dev/kmsg"]);
    spec.privileged = true;
    spec.capabilities.add = vec!["ALL".into()];
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let mode = fs::metadata("/dev/null").unwrap().mode();
    let (_, text) = node.run(&pod, spec).await;
    assert_eq!(text.lines().count(), 11, "{text}");
    for line in text.lines() {
        assert!(
            line.ends_with("permission denied") || line.ends_with("operation not permitted"),
            "{line}"
        );
    }
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(),
        before
    );
    assert_eq!(fs::metadata("/dev/null").unwrap().mode(), mode);
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mapped_is_refused_by_name() {
    let node = Node::new();
    let pod = sandbox(&node, "p", |_| {}).await;
    let refused = async |change: &dyn Fn(&mut ContainerSpec)| {
        let mut spec = node.container(&pod, "main", &["helper", "exit", "0"]);
        change(&mut spec);
        pod.start_container(spec).await.unwrap_err().to_string()
    };
    let error = refused(&|spec| {
        spec.mounts = vec![Mount {
            source: "/proc/1/ns".into(),
            destination: "/data".into(),
            ..Mount::default()
        }];
    })
    .await;
    assert_eq!(
        error,
        "cannot create the container: cannot map the users of the volume at /data (/proc/1/ns) as hostUsers: false needs it: \
         its file system, proc, cannot do that"
    );
    for user in [
        User {
            uid: 65_536,
            ..User::default()
        },
        User {
            additional_gids: vec![100_000],
            ..User::default()
        },
    ] {
        let error = refused(&|spec| spec.user = user.clone()).await;
        assert!(
            error.contains("of a pod with hostUsers: false: they end at 65535"),
            "{error}"
        );
    }
    pod.destroy().await.unwrap();
    for change in [
        (|spec| spec.host_network = true) as fn(&mut SandboxSpec),
        |spec| spec.host_ipc = true,
        |spec| spec.pids = PidNamespace::Node,
    ] {
        let mut spec = node.sandbox("q");
        spec.user_namespace = true;
        change(&mut spec);
        let error = node.runtime.run_sandbox(spec).await.unwrap_err();
        assert!(matches!(error, RunSandboxError::UsersOfNode), "{error}");
    }
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_agent_knows_whose_users_are_whose() {
    let node = Node::new();
    let pod = sandbox(&node, "p", |spec| spec.pids = PidNamespace::Pod).await;
    pod.start_container(node.container(&pod, "main", &["helper", "pause"]))
        .await
        .unwrap();
    let next = node.another_runtime();
    // Even before it has looked what there is.
    let mut spec = node.sandbox("q");
    spec.user_namespace = true;
    let other = next.run_sandbox(spec).await.unwrap();
    let started = other
        .start_container(node.container(&other, "main", &["helper", "pause"]))
        .await
        .unwrap();
    assert_eq!(user_of(started.pid), FIRST + 65_536);
    let adopted = next.adopt().await;
    let adopted = adopted.iter().find(|pod| pod.uid() == "p").unwrap();
    assert!(adopted.shim_alive());
    let text = run_in(adopted, "main-0", &["helper", "users"]).await;
    assert_eq!(text, format!("0 {FIRST} 65536\n"));
    let again = adopted
        .start_container(node.container(adopted, "again", &["helper", "pause"]))
        .await
        .unwrap();
    assert_eq!(user_of(again.pid), FIRST);
    adopted.destroy().await.unwrap();
    other.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
