//! Programs executed in running containers, and attaching to containers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flotilla_runtime::{AttachSpec, Capabilities, Exec, ExecError, ExecSpec, Pod, TerminalSize, User};
use support::{LIMIT, Node, ended, eventually, find, log};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

fn exec(args: &[&str]) -> ExecSpec {
    ExecSpec {
        container: "main-0".to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        stdout: true,
        stderr: true,
        ..ExecSpec::default()
    }
}

fn attach_all() -> AttachSpec {
    AttachSpec {
        stdin: true,
        stdout: true,
        stderr: true,
        size: None,
    }
}

async fn text(reader: &mut Option<flotilla_runtime::ExecReader>) -> String {
    let mut text = String::new();
    let read = reader.as_mut().unwrap().read_to_string(&mut text);
    tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
    text
}

/// Runs a program to its end: code, stdout, stderr.
async fn run(pod: &Pod, spec: ExecSpec) -> (i32, String, String) {
    let mut exec = pod.exec(spec).await.unwrap();
    let (out, err) = (text(&mut exec.stdout).await, text(&mut exec.stderr).await);
    (code(&mut exec).await, out, err)
}

async fn code(exec: &mut Exec) -> i32 {
    tokio::time::timeout(LIMIT, exec.wait())
        .await
        .unwrap()
        .unwrap()
        .code
}

/// A pod with one container that does nothing.
async fn idle(node: &Node) -> Pod {
    let pod = node.pod("p").await;
    pod.start_container(node.container(&pod, "main", &["helper", "pause"]))
        .await
        .unwrap();
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_exit_codes_of_an_executed_program_are_exact() {
    let node = Node::new();
    let pod = idle(&node).await;
    let said = run(&pod, exec(&["helper", "say", "hello", "world"])).await;
    assert_eq!(said, (0, "hello\n".to_owned(), "world\n".to_owned()));
    assert_eq!(run(&pod, exec(&["/bin/helper", "exit", "42"])).await.0, 42);

    let mut waits = pod.exec(exec(&["helper", "pause"])).await.unwrap();
    waits.kill();
    let exit = waits.wait().await.unwrap();
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert_eq!(waits.wait().await.unwrap(), exit, "it can be asked again");

    let refused = async |args: &[&str]| {
        let error = pod.exec(exec(args)).await.unwrap_err();
        format!("{:?} {error}", error.exit_code())
    };
    assert_eq!(
        refused(&["nothing"]).await,
        "Some(127) exec: \"nothing\": executable file not found in $PATH"
    );
    assert_eq!(
        refused(&["not-executable"]).await,
        "Some(126) exec: \"not-executable\": permission denied"
    );
    let unknown = ExecSpec {
        container: "other-0".to_owned(),
        ..exec(&["x"])
    };
    assert!(matches!(pod.exec(unknown).await, Err(ExecError::Unknown { .. })));
    pod.kill("main-0", libc::SIGKILL).await.unwrap();
    ended(&pod, "main-0").await;
    assert!(matches!(
        pod.exec(exec(&["helper"])).await,
        Err(ExecError::NotRunning { .. })
    ));
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executed_program_is_the_containers_in_every_way() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "main", &["helper", "pause"]);
    spec.user = User {
        uid: 33,
        gid: 44,
        additional_gids: vec![7],
    };
    spec.cwd = "/made/for/it".to_owned();
    spec.env = vec![("GREETING".to_owned(), "hi there".to_owned())];
    spec.no_new_privileges = true;
    spec.capabilities = Capabilities {
        add: vec!["NET_BIND_SERVICE".into()],
        drop: vec!["ALL".into()],
    };
    let started = pod.start_container(spec).await.unwrap();
    let (_, out, _) = run(&pod, exec(&["helper", "identity"])).await;
    for line in [
        "cwd /made/for/it",
        "user 33 44 [7]",
        "env GREETING=hi there",
        "env HOME=/srv/web",
    ] {
        assert!(out.contains(&format!("{line}\n")), "{line} is missing in {out}");
    }
    assert!(!out.contains("pid 1\n"), "{out}");
    assert_eq!(
        out.matches("env ").count(),
        3,
        "nothing of the agent's environment: {out}"
    );

    let (_, status, _) = run(&pod, exec(&["helper", "status"])).await;
    assert!(status.contains("CapBnd:\t0000000000000400"), "{status}");
    assert!(status.contains("CapPrm:\t0000000000000000"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");

    let (_, descriptors, _) = run(&pod, exec(&["helper", "descriptors"])).await;
    let numbers: Vec<_> = descriptors
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        numbers,
        ["0", "1", "2", "3"],
        "3 is the listing itself: {descriptors}"
    );

    let waits = pod.exec(exec(&["helper", "pause"])).await.unwrap();
    let namespaces = |pid: i32| {
        ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"]
            .map(|kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap())
    };
    let others: Vec<i32> = node
        .processes("main-0")
        .into_iter()
        .filter(|pid| *pid != started.pid)
        .collect();
    assert_eq!(others.len(), 1, "it is in the container's cgroup");
    assert_eq!(namespaces(others[0]), namespaces(started.pid));
    waits.kill();
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn much_data_goes_in_and_out_and_stdin_ends() {
    const BYTES: usize = 3 << 20;
    let node = Node::new();
    let pod = idle(&node).await;
    let mut exec = pod
        .exec(ExecSpec {
            stdin: true,
            ..exec(&["helper", "echo"])
        })
        .await
        .unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    let write = async move {
        stdin.write_all(&vec![b'x'; BYTES]).await.unwrap();
        stdin.shutdown().await.unwrap();
        stdin.write_all(b"more").await.unwrap_err();
    };
    let (out, ()) = tokio::join!(text(&mut exec.stdout), write);
    assert_eq!(out.len(), BYTES + "end\n".len());
    assert_eq!(code(&mut exec).await, 0);

    // A client that goes away breaks the pipes, and the shim forgets about it.
    let gone = pod
        .exec(ExecSpec {
            stdin: true,
            ..exec_of_echo()
        })
        .await
        .unwrap();
    drop(gone);
    eventually("the program has ended with its client", || {
        node.processes("main-0").len() == 1
    })
    .await;
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

fn exec_of_echo() -> ExecSpec {
    exec(&["helper", "echo"])
}

/// Reads lines until one is as expected.
async fn expect(reader: &mut (impl AsyncBufReadExt + Unpin), expected: &str) {
    let read = async {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert!(
                reader.read_line(&mut line).await.unwrap() > 0,
                "{expected:?} is missing in {seen:?}"
            );
            if line.trim() == expected {
                return;
            }
            seen.push_str(&line);
        }
    };
    tokio::time::timeout(LIMIT, read)
        .await
        .unwrap_or_else(|_| panic!("not in time: {expected:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executed_program_gets_a_terminal_that_can_be_resized() {
    let node = Node::new();
    let pod = idle(&node).await;
    let spec = ExecSpec {
        tty: true,
        stdin: true,
        size: Some(TerminalSize {
            columns: 80,
            rows: 24,
        }),
        ..exec(&["helper", "terminal"])
    };
    let mut exec = pod.exec(spec.clone()).await.unwrap();
    assert!(exec.stderr.is_none() && exec.is_terminal());
    let mut out = BufReader::new(exec.stdout.take().unwrap());
    let mut stdin = exec.stdin.take().unwrap();
    expect(&mut out, "terminal true true").await;
    stdin.write_all(b"one\n").await.unwrap();
    expect(&mut out, "got one 80x24").await;
    exec.resize(TerminalSize {
        columns: 132,
        rows: 50,
    });
    stdin.write_all(b"two\n").await.unwrap();
    expect(&mut out, "got two 132x50").await;
    stdin.write_all(b"quit\n").await.unwrap();
    assert_eq!(code(&mut exec).await, 9);
    let mut rest = String::new();
    out.read_to_string(&mut rest)
        .await
        .expect("a terminal without programs is at its end");

    // A client that goes away takes the terminal with it.
    drop(pod.exec(spec).await.unwrap());
    eventually("the program has ended with its terminal", || {
        node.processes("main-0").len() == 1
    })
    .await;
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// Keeps every processor busy until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn begin() -> Busy {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..2 * std::thread::available_parallelism().unwrap().get() {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        Busy(over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_to_a_terminal_is_there_however_soon_its_program_ended() {
    let node = Node::new();
    let pod = idle(&node).await;
    let _busy = Busy::begin();
    let spec = ExecSpec {
        tty: true,
        ..exec(&["helper", "say", "hello", "world"])
    };
    for round in 0..200 {
        let mut exec = pod.exec(spec.clone()).await.unwrap();
        let mut out = exec.stdout.take().unwrap();
        if round % 2 == 0 {
            // Nothing was asked of the terminal before the program's end.
            assert_eq!(code(&mut exec).await, 0);
            let mut text = Vec::new();
            loop {
                let piece = out.read_now().unwrap();
                if piece.is_empty() {
                    break;
                }
                text.extend_from_slice(&piece);
            }
            assert_eq!(String::from_utf8_lossy(&text), "hello\r\nworld\r\n", "{round}");
        } else {
            assert_eq!(text(&mut Some(out)).await, "hello\r\nworld\r\n", "{round}");
        }
    }
    for number in 0..20 {
        let mut spec = node.container(&pod, &format!("t{number}"), &["helper", "say", "hello", "world"]);
        spec.terminal = true;
        let (exit, log) = node.run(&pod, spec).await;
        let lines = "stdout F hello\nstdout F world\n";
        assert_eq!((exit.code, log.as_str()), (0, lines), "{number}");
    }
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_attach_to_stdin_and_output_beside_the_log() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "main", &["helper", "echo"]);
    spec.stdin = true;
    let path = spec.log_path.clone();
    pod.start_container(spec).await.unwrap();
    let mut first = pod.attach("main-0", attach_all()).await.unwrap();
    let mut second = pod.attach("main-0", attach_all()).await.unwrap();
    let mut out = BufReader::new(second.stdout.take().unwrap());
    first
        .stdin
        .take()
        .unwrap()
        .write_all(b"from the first\n")
        .await
        .unwrap();
    expect(&mut out, "from the first").await;
    // The first has closed its stdin, the container's stays open.
    second
        .stdin
        .take()
        .unwrap()
        .write_all(b"from the second\n")
        .await
        .unwrap();
    expect(&mut out, "from the second").await;
    drop(first);
    second.kill();
    assert!(
        find(&pod, "main-0").unwrap().finished.is_none(),
        "an attachment kills nothing"
    );
    pod.kill("main-0", libc::SIGKILL).await.unwrap();
    assert_eq!(code(&mut second).await, 137);
    let mut rest = String::new();
    out.read_to_string(&mut rest).await.unwrap();
    assert_eq!(log(&path), "stdout F from the first\nstdout F from the second\n");
    assert!(matches!(
        pod.attach("main-0", attach_all()).await,
        Err(ExecError::NotRunning { .. })
    ));

    let mut spec = node.container(&pod, "once", &["helper", "echo"]);
    (spec.stdin, spec.stdin_once) = (true, true);
    pod.start_container(spec).await.unwrap();
    let mut only = pod.attach("once-0", attach_all()).await.unwrap();
    let mut stdin = only.stdin.take().unwrap();
    stdin.write_all(b"all there is\n").await.unwrap();
    drop(stdin);
    assert_eq!(text(&mut only.stdout).await, "all there is\nend\n");
    assert_eq!(code(&mut only).await, 0);
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_terminal_outlives_the_agent() {
    let node = Node::new();
    let pod = node.pod("p").await;
    let mut spec = node.container(&pod, "main", &["helper", "terminal"]);
    (spec.terminal, spec.stdin) = (true, true);
    spec.user.uid = 33;
    let path = spec.log_path.clone();
    pod.start_container(spec).await.unwrap();
    eventually("the program has said what it has", || {
        log(&path).contains("terminal true true")
    })
    .await;
    let before = pod.attach("main-0", attach_all()).await.unwrap();
    drop((before, pod));

    let pod = node.another_runtime().adopt().await.remove(0);
    let mut spec = attach_all();
    spec.size = Some(TerminalSize {
        columns: 100,
        rows: 30,
    });
    let mut attached = pod.attach("main-0", spec).await.unwrap();
    let mut out = BufReader::new(attached.stdout.take().unwrap());
    let mut stdin = attached.stdin.take().unwrap();
    stdin.write_all(b"again\n").await.unwrap();
    expect(&mut out, "got again 100x30").await;
    attached.resize(TerminalSize {
        columns: 101,
        rows: 31,
    });
    stdin.write_all(b"bigger\n").await.unwrap();
    expect(&mut out, "got bigger 101x31").await;
    stdin.write_all(b"quit\n").await.unwrap();
    assert_eq!(code(&mut attached).await, 9);
    assert_eq!(ended(&pod, "main-0").await.code, 9);
    assert!(log(&path).contains("stdout F got bigger 101x31"));
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_takes_no_memory_and_a_reader_sees_every_line() {
    const LINES: usize = 20_000;
    let node = Node::new();
    let pod = node.pod("p").await;
    let spec = node.container(
        &pod,
        "main",
        &["helper", "flood-after-input", &LINES.to_string(), "100"],
    );
    let spec = flotilla_runtime::ContainerSpec { stdin: true, ..spec };
    pod.start_container(spec).await.unwrap();
    let mut slow = pod.attach("main-0", attach_all()).await.unwrap();
    slow.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let out = text(&mut slow.stdout).await;
    let numbers: Vec<usize> = out.lines().map(|line| line[..8].parse().unwrap()).collect();
    assert_eq!(numbers, (0..LINES).collect::<Vec<_>>());
    assert_eq!(code(&mut slow).await, 0);
    pod.destroy().await.unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
