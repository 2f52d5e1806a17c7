//! Commands, ports, files and logs of containers, with both kubectls and with `flotilla`: through any server to any node.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use flotilla_cluster_tests::{Cluster, eventually, flotilla_binary, kubectls, succeed, text};

const LIMIT: Duration = Duration::from_secs(30);
const MEGABYTES: usize = 100;

/// Everything that the tests need of a container: a shell, an echo service, a web server, and one that echoes its input.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: box, labels: {app: box}}
spec:
  nodeName: agent-1
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: flotilla.test/busybox:latest
    command: [sh, -c, "echo started; nc -ll -p 7000 -e cat & mkdir -p /www && cd /www && httpd -p 8080; while sleep 1; do :; done"]
    ports: [{name: http, containerPort: 8080}]
  - name: echo
    image: flotilla.test/busybox:latest
    command: [cat]
    stdin: true
---
apiVersion: v1
kind: Service
metadata: {name: box}
spec:
  selector: {app: box}
  ports: [{port: 80, targetPort: http}]
"#;

/// A cluster with the pod on a node that is no server.
struct Bench {
    cluster: Cluster,
    /// A server that does not lead, and its address.
    follower: (String, String),
}

impl Bench {
    fn up() -> Self {
        let cluster = Cluster::up(3, 1);
        cluster.import_image("busybox");
        cluster.apply(POD);
        cluster.ready_pods("app=box", 1, LIMIT);
        let leader = cluster.leader();
        let status = cluster.status();
        let nodes = status["nodes"].as_array().unwrap();
        let is_follower = |name: &str| name.starts_with("server") && name != leader;
        let follower = nodes
            .iter()
            .find(|node| is_follower(node["name"].as_str().unwrap()));
        let field = |name: &str| follower.unwrap()[name].as_str().unwrap().to_owned();
        let follower = (field("name"), field("address"));
        Self { cluster, follower }
    }

    /// A client in the network of the follower, which talks to it and to no other server.
    fn over_the_follower(&self, client: &Path, words: &[&str]) -> Command {
        let (name, address) = &self.follower;
        let kubeconfig = self.cluster.folder().join("follower.kubeconfig");
        let original = std::fs::read(self.cluster.kubeconfig()).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&original).unwrap();
        config["clusters"][0]["cluster"]["server"] = format!("https://{address}:6443").into();
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let mut all = vec!["local", "--name", self.cluster.name(), "--dir"];
        let (folder, client) = (self.cluster.folder().to_str().unwrap(), client.to_str().unwrap());
        all.extend([folder, "exec", name, "--", client]);
        all.extend(words);
        let mut command = self.cluster.command(flotilla_binary(), &all);
        command.env("KUBECONFIG", kubeconfig);
        command
    }

    fn shell(&self, script: &str) -> String {
        self.cluster
            .flotilla(&["exec", "box", "-c", "main", "--", "sh", "-c", script])
    }
}

/// Both kubectls and our own client.
fn clients() -> Vec<PathBuf> {
    kubectls().into_iter().chain([flotilla_binary()]).collect()
}

fn run(mut command: Command, input: &str) -> Output {
    let piped = || Stdio::piped();
    let mut child = command
        .stdin(piped())
        .stdout(piped())
        .stderr(piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn expect(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let (found_out, found_err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{found_out}{found_err}");
    assert_eq!(found_out, stdout);
    assert!(found_err.contains(stderr), "{found_err:?} lacks {stderr:?}");
}

#[test]
fn commands_run_through_a_follower_on_another_node() {
    let bench = Bench::up();
    for client in clients() {
        let exec = |words: &[&str], input: &str| {
            let all = [&["exec", "-i", "box", "-c", "main", "--"], words].concat();
            run(bench.over_the_follower(&client, &all), input)
        };
        let output = exec(&["sh", "-c", "echo out; echo err >&2; exit 42"], "");
        expect(&output, 42, "out\n", "err\n");
        assert!(text(&output.stderr).contains("command terminated with exit code 42"));
        // The count comes only when the input has ended.
        expect(&exec(&["wc", "-c"], "hello"), 0, "5\n", "");
        let missing = "error executing command in container";
        expect(&exec(&["/missing"], ""), 1, "", missing);
        let wrong = bench.over_the_follower(&client, &["exec", "box", "-c", "other", "--", "ls"]);
        expect(&run(wrong, ""), 1, "", "container other is not valid for pod box");
        let wrong = bench.over_the_follower(&client, &["exec", "other", "--", "ls"]);
        expect(&run(wrong, ""), 1, "", "pods \"other\" not found");
    }
}

#[test]
fn terminals_have_a_size_and_attached_processes_get_input() {
    let bench = Bench::up();
    for client in clients() {
        let client = client.to_str().unwrap();
        let line = format!(
            "stty rows 40 cols 100; {client} exec -it box -c main -- sh -c 'stty size; test -t 1 && echo terminal; exit 7'"
        );
        let mut script = bench.cluster.command("script", &["-qec", &line, "/dev/null"]);
        let script = script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().unwrap();
        // At the end of its input it would type one more character, which the terminal shows amid the output.
        let open = script.stdin.take();
        let output = script.wait_with_output().unwrap();
        drop(open);
        let shown = text(&output.stdout);
        assert!(shown.contains("40 100\r\nterminal\r\n"), "{shown:?}");
        assert_eq!(output.status.code(), Some(7), "{shown:?}");
        let mut attach = bench
            .cluster
            .command(client, &["attach", "-i", "box", "-c", "echo"]);
        let mut child = attach
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"hello\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "hello\n");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The checksum of what a command writes.
fn checksum(mut command: Command) -> String {
    let mut source = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut sum = Command::new("sha256sum");
    let sum = sum.stdin(source.stdout.take().unwrap());
    let output = sum.output().unwrap();
    assert!(source.wait().unwrap().success());
    text(&output.stdout).split(' ').next().unwrap().to_owned()
}

fn file_checksum(path: &Path) -> String {
    let file = path.to_str().unwrap();
    let mut cat = Command::new("cat");
    cat.arg(file);
    checksum(cat)
}

fn rate(begin: Instant) -> f64 {
    MEGABYTES as f64 / begin.elapsed().as_secs_f64()
}

#[test]
fn large_files_arrive_unchanged() {
    let bench = Bench::up();
    bench.shell(&format!(
        "dd if=/dev/urandom of=/www/big bs=1M count={MEGABYTES} 2>&1"
    ));
    let expected = bench
        .shell("sha256sum /www/big")
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    for (number, client) in clients().into_iter().enumerate() {
        let begin = Instant::now();
        let cat = bench.over_the_follower(&client, &["exec", "box", "-c", "main", "--", "cat", "/www/big"]);
        assert_eq!(checksum(cat), expected);
        let exec = rate(begin);
        let folder = bench.cluster.folder().join(format!("copy-{number}"));
        let (there, back) = (folder.to_str().unwrap(), format!("/tmp/back-{number}"));
        let begin = Instant::now();
        succeed(bench.over_the_follower(&client, &["cp", "-c", "main", "box:/www", there]));
        assert_eq!(file_checksum(&folder.join("big")), expected);
        let down = rate(begin);
        let begin = Instant::now();
        succeed(bench.over_the_follower(&client, &["cp", "-c", "main", there, &format!("box:{back}")]));
        let up = rate(begin);
        let found = bench.shell(&format!("sha256sum {back}/big"));
        assert!(found.starts_with(&expected), "{found}");
        let begin = Instant::now();
        let forward = Forward::start(&bench, &client, "box", ":8080");
        assert_eq!(checksum(forward.get("/big")), expected);
        let port = rate(begin);
        // For whoever runs it with --no-capture; nothing depends on it.
        eprintln!(
            "{}: MB/s: exec {exec:.0}, cp down {down:.0}, cp up {up:.0}, port-forward {port:.0}",
            client.display()
        );
    }
}

/// A running `port-forward`.
struct Forward {
    child: Child,
    port: u16,
}

impl Forward {
    fn start(bench: &Bench, client: &Path, subject: &str, ports: &str) -> Self {
        let mut command = bench.cluster.command(client, &["port-forward", subject, ports]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let port = line
            .strip_prefix("Forwarding from 127.0.0.1:")
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{line:?}"));
        // What it says of each connection must be read, or it waits.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, port }
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        connection
    }

    fn get(&self, path: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", &format!("http://127.0.0.1:{}{path}", self.port)]);
        command
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Sends data and its end, and expects the same back.
fn echo(number: usize, mut connection: TcpStream) {
    let data: Vec<u8> = (0..100_000).map(|at| (at * 7 + number) as u8).collect();
    let mut writer = connection.try_clone().unwrap();
    let sent = data.clone();
    let sending = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut found = Vec::new();
    connection.read_to_end(&mut found).unwrap();
    sending.join().unwrap();
    assert!(found == data, "connection {number} got {} bytes", found.len());
}

#[test]
fn many_connections_are_forwarded_and_each_direction_ends_by_itself() {
    let bench = Bench::up();
    bench.shell("echo page > /www/index.html");
    for client in clients() {
        let forward = Forward::start(&bench, &client, "pod/box", ":7000");
        // One after the other, because the echo service accepts few at once; then all speak at the same time.
        let connections: Vec<TcpStream> = (0..50)
            .map(|_| {
                let mut connection = forward.connect();
                connection.write_all(b"?").unwrap();
                connection.read_exact(&mut [0]).unwrap();
                connection
            })
            .collect();
        std::thread::scope(|scope| {
            for (number, connection) in connections.into_iter().enumerate() {
                scope.spawn(move || echo(number, connection));
            }
        });
        drop(forward);
        let service = Forward::start(&bench, &client, "service/box", ":80");
        assert_eq!(succeed(service.get("/")), "page\n");
    }
}

#[test]
fn the_logs_of_a_deleted_pod_are_kept() {
    let bench = Bench::up();
    let cluster = &bench.cluster;
    cluster.flotilla(&["delete", "pod", "box"]);
    let log = eventually("the pod is gone and its log is kept", LIMIT, || {
        let output = cluster.try_flotilla(&["logs", "--deleted", "box", "-c", "main"]);
        output.status.success().then(|| text(&output.stdout))
    });
    assert_eq!(log, "started\n");
    let over = bench.over_the_follower(&flotilla_binary(), &["logs", "--deleted", "box", "-c", "main"]);
    assert_eq!(succeed(over), "started\n");
    let none = cluster.try_flotilla(&["logs", "--deleted", "other"]);
    expect(&none, 1, "", "there are logs of box");
}

#[test]
fn a_node_that_is_away_is_named() {
    let bench = Bench::up();
    bench.cluster.local(&["kill", "agent-1"]);
    for client in clients() {
        let words = ["exec", "box", "-c", "main", "--", "ls"];
        eventually("the node's absence is told", LIMIT, || {
            let output = run(bench.cluster.command(&client, &words), "");
            let told = text(&output.stderr).contains("node \"agent-1\" has no connection to this server");
            (!output.status.success() && told).then_some(())
        });
    }
}
