//! `exec` and `attach`: the streams of one process in a container.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use flotilla_api::{Reason, Status};
use flotilla_report::report;
use flotilla_runtime::{AttachSpec, Exec, ExecError, ExecReader, ExecSpec, ExecWriter, Exit, TerminalSize};
use flotilla_tunnel::copy::read_frame;
use flotilla_tunnel::request::{AttachRequest, ExecRequest, Outcome, Size, channel};
use flotilla_tunnel::{Ends, Frame};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Streams;
use crate::worker::Surroundings;

/// A process that has ended may have left others that hold its output open: they are listened to until they are silent
/// for this long.
const QUIET: Duration = Duration::from_millis(250);

/// How long a command with a terminal waits for its size: programs look at it when they start. Clients with a terminal
/// tell it at once, beside their input; only the commands of those that have none wait for so long.
const FIRST_SIZE_LIMIT: Duration = Duration::from_millis(250);

/// What may come in before the size, up to a megabyte of input.
const FIRST_FRAMES_MAX: usize = 16;

/// A process whose streams are to be carried.
pub(super) enum Process {
    /// A command, which ends with its client.
    Command(Exec),
    /// A container's own process, which does not.
    Container(Exec),
    /// A command that gets a terminal, and is started once that has a size.
    Terminal(Box<Terminal>),
    /// A command that could not be started, and why.
    Failed(String),
}

/// What is needed to start a command later.
pub(super) struct Terminal {
    surroundings: Arc<Surroundings>,
    uid: String,
    spec: ExecSpec,
}

/// Starts a command.
pub(super) async fn begin_exec(streams: &Streams, wanted: ExecRequest) -> Result<Process, Status> {
    let ExecRequest {
        target,
        container,
        command,
        streams: pipes,
    } = wanted;
    let (uid, id) = run_id(streams, &target, &container)?;
    let spec = ExecSpec {
        container: id,
        args: command,
        tty: pipes.tty,
        stdin: pipes.stdin,
        stdout: pipes.stdout,
        stderr: pipes.stderr,
        size: None,
    };
    if spec.tty {
        return Ok(Process::Terminal(Box::new(Terminal {
            surroundings: streams.surroundings.clone(),
            uid,
            spec,
        })));
    }
    match streams.surroundings.machine.exec(&uid, spec).await {
        Ok(exec) => Ok(Process::Command(exec)),
        Err(ExecError::Unknown { .. } | ExecError::NotRunning { .. }) => Err(not_found(&container)),
        Err(error) => Ok(Process::Failed(failed(&error))),
    }
}

fn failed(error: &ExecError) -> String {
    format!("error executing command in container: {}", report(error))
}

/// Joins a container's own process.
pub(super) async fn begin_attach(streams: &Streams, wanted: AttachRequest) -> Result<Process, Status> {
    let (uid, id) = run_id(streams, &wanted.target, &wanted.container)?;
    let spec = AttachSpec {
        stdin: wanted.streams.stdin,
        stdout: wanted.streams.stdout,
        stderr: wanted.streams.stderr,
        size: None,
    };
    let attached = streams.surroundings.machine.attach(&uid, &id, spec).await;
    match attached {
        Ok(exec) => Ok(Process::Container(exec)),
        Err(ExecError::Unknown { .. } | ExecError::NotRunning { .. }) => Err(not_found(&wanted.container)),
        Err(error) => Err(Status::new(
            Reason::InternalError,
            format!("error attaching to container: {}", report(&error)),
        )),
    }
}

/// The uid under which the pod runs here, and the runtime's name of the container's present run.
fn run_id(
    streams: &Streams,
    target: &flotilla_tunnel::request::Target,
    container: &str,
) -> Result<(String, String), Status> {
    let (uid, view) = streams.find(target)?;
    let run = view.history.container(container).run;
    let run = run.filter(|run| run.finished.is_none());
    run.map(|run| (uid, run.id)).ok_or_else(|| not_found(container))
}

fn not_found(container: &str) -> Status {
    // In kubelet's words, which clients know.
    Status::new(Reason::NotFound, format!("container not found (\"{container}\")"))
}

/// Carries a process's streams until it ends, or until the client goes; a command is then ended with it.
pub(super) async fn run(process: Process, mut ends: Ends) {
    let mut first = Vec::new();
    let (exec, is_attached) = match process {
        Process::Command(exec) => (exec, false),
        Process::Container(exec) => (exec, true),
        Process::Terminal(mut terminal) => {
            first = first_frames(&mut ends.incoming).await;
            terminal.spec.size = first.last().and_then(size);
            let machine = &terminal.surroundings.machine;
            match machine.exec(&terminal.uid, terminal.spec).await {
                Ok(exec) => (exec, false),
                Err(error) => return tell(&ends.outgoing, &Outcome::Failed(failed(&error))).await,
            }
        }
        Process::Failed(message) => return tell(&ends.outgoing, &Outcome::Failed(message)).await,
    };
    let gone = ends.outgoing.clone();
    let ended = carry(exec, first, ends);
    // Dropping the streams of a process that nobody listens to any more loses nothing.
    tokio::select! {
        (outgoing, ended) = ended => tell(&outgoing, &outcome(ended, is_attached)).await,
        () = gone.closed() => {}
    }
}

fn outcome(ended: Result<Exit, String>, is_attached: bool) -> Outcome {
    match ended {
        Err(message) => Outcome::Failed(message),
        Ok(_) if is_attached => Outcome::Exited(0),
        Ok(exit) if exit.unknown => Outcome::Failed("it is not known how the command ended".to_owned()),
        Ok(exit) => Outcome::Exited(exit.code),
    }
}

async fn tell(outgoing: &mpsc::Sender<Frame>, outcome: &Outcome) {
    let json = serde_json::to_vec(outcome).expect("an outcome is plain data");
    // A client that has gone does not want to know.
    let _ = outgoing.send(Frame::data(channel::OUTCOME, json)).await;
}

/// Ends a command whose client has gone. What an ended command leaves running in the background is left alone.
struct KillOnDrop {
    exec: Exec,
    has_ended: bool,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.has_ended {
            self.exec.kill();
        }
    }
}

/// What the client says until it has told the size of its terminal, or for a moment if it does not.
async fn first_frames(incoming: &mut mpsc::Receiver<Frame>) -> Vec<Frame> {
    let limit = Instant::now() + FIRST_SIZE_LIMIT;
    let mut first = Vec::new();
    while first.len() < FIRST_FRAMES_MAX {
        // A receive that is dropped has received nothing.
        let Ok(Some(frame)) = tokio::time::timeout_at(limit, incoming.recv()).await else {
            break;
        };
        let is_size = frame.channel == channel::RESIZE;
        first.push(frame);
        if is_size {
            break;
        }
    }
    first
}

/// The terminal's size, if a frame tells one.
fn size(frame: &Frame) -> Option<TerminalSize> {
    let is_size = frame.channel == channel::RESIZE;
    let size: Size = serde_json::from_slice(&frame.data).ok().filter(|_| is_size)?;
    Some(TerminalSize {
        columns: size.width,
        rows: size.height,
    })
}

async fn carry(mut exec: Exec, first: Vec<Frame>, ends: Ends) -> (mpsc::Sender<Frame>, Result<Exit, String>) {
    let Ends { outgoing, incoming } = ends;
    let finished = CancellationToken::new();
    let (stdin, stdout, stderr) = (exec.stdin.take(), exec.stdout.take(), exec.stderr.take());
    // It is kept until all is read: an attachment's output ends with it.
    let mut exec = KillOnDrop {
        exec,
        has_ended: false,
    };
    let (sizes, new_sizes) = watch::channel(None);
    let output = async {
        tokio::join!(
            output(stdout, channel::STDOUT, &outgoing, &finished),
            output(stderr, channel::STDERR, &outgoing, &finished),
        )
    };
    let ended = async {
        let ended = wait(&mut exec, new_sizes).await;
        finished.cancel();
        ended
    };
    let both = async { tokio::join!(output, ended).1 };
    // Input has no say in when it ends, except that a client that is gone ends all.
    let ended = tokio::select! {
        ended = both => ended,
        () = input(stdin, first, incoming, sizes) => Err("the client has gone".to_owned()),
    };
    (outgoing, ended)
}

/// Waits for the process's end and gives its terminal new sizes meanwhile.
async fn wait(
    exec: &mut KillOnDrop,
    mut sizes: watch::Receiver<Option<TerminalSize>>,
) -> Result<Exit, String> {
    loop {
        // Waiting may be dropped and begun anew.
        tokio::select! {
            ended = exec.exec.wait() => {
                exec.has_ended = true;
                return ended.map_err(|error| report(&error));
            }
            Ok(()) = sizes.changed() => {
                if let Some(size) = *sizes.borrow_and_update() {
                    exec.exec.resize(size);
                }
            }
        }
    }
}

/// Sends what the process writes, until all who could write have closed it or, after its end, are silent.
async fn output(
    reader: Option<ExecReader>,
    number: u8,
    outgoing: &mpsc::Sender<Frame>,
    finished: &CancellationToken,
) {
    let Some(mut reader) = reader else { return };
    let mut buffer = BytesMut::new();
    loop {
        // A read that is dropped has read nothing. Silence is what the kernel says: on a busy machine time may have
        // passed without anybody looking whether there is something to read.
        let data = tokio::select! {
            data = read_frame(&mut reader, &mut buffer) => data,
            () = silence(finished) => reader.read_now(),
        };
        match data {
            Ok(data) if !data.is_empty() => {
                if outgoing.send(Frame::data(number, data)).await.is_err() {
                    return;
                }
            }
            // The end, or silence.
            _ => break,
        }
    }
    // With the client gone there is nobody to tell.
    let _ = outgoing.send(Frame::close(number)).await;
}

async fn silence(finished: &CancellationToken) {
    finished.cancelled().await;
    tokio::time::sleep(QUIET).await;
}

/// Hands on what the client sends; ends when the client has gone.
async fn input(
    mut stdin: Option<ExecWriter>,
    first: Vec<Frame>,
    mut incoming: mpsc::Receiver<Frame>,
    sizes: watch::Sender<Option<TerminalSize>>,
) {
    let mut first = first.into_iter();
    loop {
        let next = match first.next() {
            Some(first) => Some(first),
            None => incoming.recv().await,
        };
        let Some(frame) = next else { return };
        match frame.channel {
            channel::STDIN => {
                let taken = match &mut stdin {
                    Some(stdin) => stdin.write_all(&frame.data).await.is_ok(),
                    None => true,
                };
                // A process that has closed its input takes no more.
                if frame.close || !taken {
                    stdin = None;
                }
            }
            channel::RESIZE => {
                if let Some(size) = size(&frame) {
                    sizes.send_replace(Some(size));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
