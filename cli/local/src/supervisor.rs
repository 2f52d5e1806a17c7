//! The process that belongs to a cluster: starts its nodes, reaps what they leave, forwards the API's port.
//!
//! *Guarantees*: it never stops a node, and nodes go on when it ends; the next command that needs it starts another.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

use crate::error::At;
use crate::node::Process;
use crate::place::open_pin;
use crate::proxy::Proxy;
use crate::state::{API_PORT, State};
use crate::{LocalError, Place, switch};

const NAME: &str = "supervisor";

/// Asks for a node's process.
#[derive(Debug, Serialize, Deserialize)]
struct StartNode {
    node: String,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Started,
    Failed(String),
}

/// Starts the supervisor unless it runs; returns the forwarded port.
pub(crate) fn ensure(place: &Place, state: &State) -> Result<u16, LocalError> {
    if Process::read(&place.pid_file(NAME)).is_some() {
        return Ok(state.port);
    }
    let log = open_log(place, NAME)?;
    let mut child = Command::new(&state.executable)
        .args(["local", "--name", place.name(), "--dir"])
        .arg(place.folder().parent().unwrap_or(&place.folder()))
        .arg("supervise")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .at("run", &state.executable)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .at("hear from", &state.executable)?;
    }
    line.trim().parse().map_err(|_| {
        // It ended, and has said why.
        let _ = child.wait();
        LocalError::Supervisor(tail(place, NAME))
    })
}

/// Has the supervisor start a node's process.
pub(crate) fn start_node(place: &Place, node: &str) -> Result<(), LocalError> {
    let socket = place.control_socket();
    let ask = || {
        let mut stream = StdUnixStream::connect(&socket)?;
        let request = serde_json::to_string(&StartNode {
            node: node.to_owned(),
        })?;
        writeln!(stream, "{request}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str::<Answer>(&line)?)
    };
    match ask()
        .map_err(|error: io::Error| LocalError::Supervisor(format!("{error}; {}", tail(place, NAME))))?
    {
        Answer::Started => Ok(()),
        Answer::Failed(message) => Err(LocalError::Supervisor(message)),
    }
}

/// The supervisor's `main`: runs until it is killed. Prints the forwarded port once it is ready.
pub fn supervise(place: &Place) -> Result<(), LocalError> {
    let state = State::read(place)?;
    nix::unistd::setsid().at("begin a session for", &place.folder())?;
    set_child_subreaper(true).at("become the reaper of", &place.folder())?;
    let cgroup = place.cgroup().child(NAME);
    cgroup.create()?;
    cgroup.join()?;
    // The port is the machine's; everything opened later is in the switch's network.
    let listener =
        std::net::TcpListener::bind(("127.0.0.1", state.port)).at("listen for", &place.folder())?;
    let namespace = open_pin(&place.pins(switch::NAME), "net").at("open", &switch::namespace(place))?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).at("enter", &switch::namespace(place))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.at("start", &place.folder())?;
    runtime
        .block_on(serve(place, &state, listener))
        .at("serve", &place.folder())
}

async fn serve(place: &Place, state: &State, listener: std::net::TcpListener) -> io::Result<()> {
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let socket = place.control_socket();
    let _ = fs::remove_file(&socket);
    let control = UnixListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let addresses = state
        .servers()
        .map(|server| SocketAddr::new(server.address.into(), API_PORT));
    let proxy = Arc::new(Proxy::new(addresses.collect()));
    let tasks = TaskTracker::new();
    if let Some(process) = Process::of(nix::unistd::getpid().as_raw()) {
        process.write(&place.pid_file(NAME)).map_err(io::Error::other)?;
    }
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    loop {
        // Each arm only waits for something to arrive, so dropping it loses nothing.
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    let proxy = Arc::clone(&proxy);
                    // A connection that breaks is its client's affair, who sees it.
                    tasks.spawn(async move { drop(proxy.forward(client).await) });
                }
            }
            accepted = control.accept() => {
                if let Ok((stream, _)) = accepted {
                    // A caller that goes away in the middle is no reason to stop.
                    let _ = answer(place, state, stream).await;
                }
            }
            _ = children.recv() => reap(),
            _ = terminate.recv() => return Ok(()),
        }
    }
}

async fn answer(place: &Place, state: &State, mut stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    tokio::io::BufReader::new(reader).read_line(&mut line).await?;
    let request: StartNode = serde_json::from_str(&line)?;
    let answer = match spawn(place, state, &request.node) {
        Ok(()) => Answer::Started,
        Err(error) => {
            let source = std::error::Error::source(&error)
                .map(|source| format!(": {source}"))
                .unwrap_or_default();
            Answer::Failed(format!("{error}{source}"))
        }
    };
    writer
        .write_all(format!("{}\n", serde_json::to_string(&answer)?).as_bytes())
        .await
}

fn spawn(place: &Place, state: &State, node: &str) -> Result<(), LocalError> {
    let log = open_log(place, node)?;
    let errors = log.try_clone().at("open", &place.log(node))?;
    let child = Command::new(&state.executable)
        .args(["local", "--name", place.name(), "enter"])
        .arg(place.pins(node))
        .arg(place.node_cgroup(node).child("node").path())
        .arg("--")
        .arg(&state.executable)
        .args(state.node(node)?.arguments(state, place))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .at("run", &state.executable)?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    match Process::of(pid) {
        Some(process) => process.write(&place.pid_file(node)),
        None => Ok(()),
    }
}

/// Takes the exit codes of nodes, and of what orphans they left.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

fn open_log(place: &Place, process: &str) -> Result<File, LocalError> {
    let path = place.log(process);
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .at("open", &path)
}

/// The last lines of a process's log.
pub(crate) fn tail(place: &Place, process: &str) -> String {
    const LINES: usize = 20;
    let text = fs::read(place.log(process)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    if lines.is_empty() {
        "(it is empty)".to_owned()
    } else {
        lines[from..].join("\n")
    }
}

/// Waits a moment between two looks at a node that is starting.
pub(crate) fn look_again() {
    thread::sleep(Duration::from_millis(2));
}
