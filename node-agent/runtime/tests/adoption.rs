//! What happens to containers when the agent or the shim dies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use flotilla_runtime::Pod;
use support::{Node, ended, eventually, find, log};

/// Runs an "agent" of its own, ends it as abruptly as a task can end, and returns what it made.
fn an_agent_that_dies<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let agent = scope.spawn(|| {
            let tokio = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let made = tokio.block_on(work());
            tokio.shutdown_background();
            made
        });
        agent.join().unwrap()
    })
}

async fn adopt_one(node: &Node) -> Pod {
    let mut pods = node.another_runtime().adopt().await;
    assert_eq!(pods.len(), 1);
    pods.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_finds_containers_exits_and_logs() {
    let node = Node::new();
    let before = an_agent_that_dies(async || {
        let pod = node.pod("p").await;
        pod.start_container(node.container(&pod, "lives", &["helper", "until-term"]))
            .await
            .unwrap();
        node.run(&pod, node.container(&pod, "ended", &["helper", "exit", "5"]))
            .await;
        pod.start_container(node.container(&pod, "ends", &["helper", "until-term"]))
            .await
            .unwrap();
        (find(&pod, "lives-0").unwrap(), pod.shim_pid(), pod.spec().clone())
    });
    let ends = node.another_runtime();
    let pod = adopt_one(&node).await;
    assert!(pod.shim_alive());
    assert_eq!(
        (find(&pod, "lives-0").unwrap(), pod.shim_pid(), pod.spec().clone()),
        before
    );
    assert_eq!(find(&pod, "ended-0").unwrap().finished.unwrap().code, 5);

    // Two agents at once are told the same.
    let also = ends.adopt().await.remove(0);
    let path = find(&pod, "ends-0").unwrap().log_path;
    eventually("the container waits for its signal", || {
        log(&path).contains("ready")
    })
    .await;
    pod.kill("ends-0", libc::SIGTERM).await.unwrap();
    assert_eq!(ended(&also, "ends-0").await.code, 7);
    assert_eq!(ended(&pod, "ends-0").await.code, 7);
    pod.start_container(node.container(&pod, "new", &["helper", "exit", "0"]))
        .await
        .unwrap();
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_a_shim_is_noticed_and_its_containers_go_on() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let spec = node.container(&pod, "orphan", &["helper", "until-term"]);
    let path = spec.log_path.clone();
    pod.start_container(spec).await.unwrap();
    pod.start_container(node.container(&pod, "second", &["helper", "pause"]))
        .await
        .unwrap();
    eventually("the container waits for its signal", || {
        log(&path).contains("ready")
    })
    .await;
    let mut news = pod.exits();
    kill(pod.shim_pid().unwrap());
    news.wait_for(|_| !pod.shim_alive()).await.unwrap();
    assert!(
        find(&pod, "orphan-0").unwrap().finished.is_none(),
        "it lives on under PID 1"
    );
    pod.start_container(node.container(&pod, "late", &["helper", "pause"]))
        .await
        .unwrap_err();

    pod.kill("orphan-0", libc::SIGTERM).await.unwrap();
    let exit = ended(&pod, "orphan-0").await;
    // Linux 6.15 and later tell the code; before, nobody knows.
    assert!(
        (exit.code, exit.unknown) == (7, false) || (exit.code, exit.unknown) == (137, true),
        "{exit:?}"
    );
    pod.remove_container("orphan-0").await.unwrap();

    let adopted = adopt_one(&node).await;
    assert!(!adopted.shim_alive());
    assert_eq!(adopted.containers().len(), 1);
    pod.kill("second-0", libc::SIGKILL).await.unwrap();
    ended(&pod, "second-0").await;
    assert_eq!(ended(&adopted, "second-0").await.code, 137);
    adopted.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_that_no_agent_and_no_shim_saw_are_unknown() {
    let node = Node::new();
    let (shim, container) = an_agent_that_dies(async || {
        let pod = node.pod("p").await;
        let started = pod
            .start_container(node.container(&pod, "lost", &["helper", "pause"]))
            .await
            .unwrap();
        (pod.shim_pid().unwrap(), started.pid)
    });
    kill(shim);
    eventually("the shim is gone", || is_gone(shim)).await;
    kill(container);
    // While it is a zombie, the kernel still tells how it ended.
    let entry = std::path::PathBuf::from(format!("/proc/{container}"));
    eventually("PID 1 has reaped the container", || !entry.exists()).await;
    let pod = adopt_one(&node).await;
    let exit = ended(&pod, "lost-0").await;
    assert_eq!((exit.code, exit.signal, exit.unknown), (137, None, true));
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_shim_is_destroyed_with_all_its_processes() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let started = pod
        .start_container(node.container(&pod, "x", &["helper", "pause"]))
        .await
        .unwrap();
    kill(pod.shim_pid().unwrap());
    pod.exits().wait_for(|_| !pod.shim_alive()).await.unwrap();
    pod.destroy().await.unwrap();
    assert!(is_gone(started.pid));
    assert_eq!(node.leftovers(), Vec::<String>::new());
    pod.destroy().await.expect("once more is fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_half_made_sandboxes_are_removed() {
    let node = Node::new();
    for folder in ["run/half", "state/rebooted/x-0/upper"] {
        std::fs::create_dir_all(node.dir.path().join(folder)).unwrap();
    }
    assert!(node.runtime.adopt().await.is_empty());
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Gone, or a zombie that only waits to be noted.
fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Memory of a process, as its status has it.
fn kilobytes(pid: i32, name: &str) -> u32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_has_nothing_to_do_gives_memory_back_and_answers_as_before() {
    let node = Node::new();
    let pod = node.pod("p").await;
    pod.start_container(node.container(&pod, "main", &["helper", "pause"]))
        .await
        .unwrap();
    let shim = pod.shim_pid().unwrap();
    let rests = || kilobytes(shim, "VmRSS:") * 2 < kilobytes(shim, "VmHWM:");
    eventually("it holds less than half of what it has used", rests).await;
    let (exit, text) = node
        .run(
            &pod,
            node.container(&pod, "other", &["helper", "say", "hello", ""]),
        )
        .await;
    assert_eq!((exit.code, text.as_str()), (0, "stdout F hello\nstderr F \n"));
    eventually("it does so again", rests).await;
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
