//! Programs run in a container beside its own, and attaching to its own: the agent's side.
//!
//! Each has a connection of its own to the shim, over which come its descriptors and its end. The bytes never
//! pass through the shim of an `exec`: both ends of its pipes are where they are used, and the kernel's buffers
//! are the only ones. A client that goes away breaks the pipes; whether the program ends is the caller's choice.

mod connection;
mod streams;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::connection::Connection;
use self::streams::Terminal;
pub use self::streams::{ExecReader, ExecWriter};
use crate::errors::{ExecError, ShimError};
use crate::pod::Pod;
use crate::protocol::{Answer, Call, Handles, Message, Refusal};
use crate::sandbox;
use crate::spec::Exit;
use crate::sys;

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// A program to run in a container, as the container's user, with its environment, folder and rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The container's runtime id, `<name>-<attempt>`.
    pub container: String,
    /// Command and arguments; the first is looked up in the container's `PATH`.
    pub args: Vec<String>,
    /// Give it a terminal of the container; stderr is then part of stdout.
    pub tty: bool,
    /// Connect stdin; otherwise it is empty.
    pub stdin: bool,
    /// Connect stdout; otherwise it is thrown away.
    pub stdout: bool,
    /// Connect stderr; otherwise it is thrown away.
    pub stderr: bool,
    /// The terminal's first size.
    pub size: Option<TerminalSize>,
}

/// Which streams of a container to attach to; whether they are a terminal's is the container's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachSpec {
    /// Write to its stdin. Of a container without `stdin` there is none, and none is given.
    pub stdin: bool,
    /// Read what it writes to stdout from now on, or to its terminal.
    pub stdout: bool,
    /// Read what it writes to stderr from now on; a terminal has none.
    pub stderr: bool,
    /// The terminal's new size.
    pub size: Option<TerminalSize>,
}

/// A program that was executed in a container, or an attachment to the container's own.
///
/// Dropping it ends an attachment, but not a program: its pipes break, which ends most.
#[derive(Debug)]
pub struct Exec {
    /// The program's stdin, if asked for; shutting it down or dropping it closes it.
    pub stdin: Option<ExecWriter>,
    /// The program's stdout or terminal, if asked for.
    pub stdout: Option<ExecReader>,
    /// The program's stderr, if asked for and no terminal.
    pub stderr: Option<ExecReader>,
    terminal: Option<Arc<Terminal>>,
    process: Option<OwnedFd>,
    connection: Connection,
    container: String,
    exit: Option<Exit>,
}

impl Exec {
    /// Whether the streams are those of a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Gives the terminal another size; without a terminal, does nothing.
    pub fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            // It fails when the program's end has taken the terminal away.
            sys::set_terminal_size(terminal.descriptor(), size).ok();
        }
    }

    /// Sends SIGKILL to the program and its process group. An attachment leaves its container alone.
    pub fn kill(&self) {
        if let Some(process) = &self.process {
            // A program that has ended already is what is wanted.
            sys::kill_group_of(process).ok();
        }
    }

    /// Waits for the end of the program or, of an attachment, of the container. May be dropped and called again.
    ///
    /// What was written before may still be on its way in `stdout` and `stderr`.
    pub async fn wait(&mut self) -> Result<Exit, ExecError> {
        loop {
            if let Some(exit) = self.exit {
                return Ok(exit);
            }
            match self.connection.next().await {
                Ok(Message::Exited { exit, .. }) => self.exit = Some(exit),
                Ok(Message::Reply { .. }) => {}
                Err(source) => return Err(self.lost(source)),
            }
        }
    }

    fn lost(&self, source: ShimError) -> ExecError {
        ExecError::Shim {
            id: self.container.clone(),
            source,
        }
    }
}

impl Pod {
    /// Runs a program in a running container; returns once it has been executed.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Exec, ExecError> {
        let wanted = Wanted {
            stdin: spec.stdin,
            stdout: spec.stdout,
        };
        let id = spec.container.clone();
        self.open(id, Call::Exec(Box::new(spec)), wanted).await
    }

    /// Attaches to the streams of a running container, beside its log.
    ///
    /// A client that takes nothing holds the container's output up for some seconds, and is then cut off.
    pub async fn attach(&self, id: &str, spec: AttachSpec) -> Result<Exec, ExecError> {
        let wanted = Wanted {
            stdin: spec.stdin,
            // It comes over a pipe, for the container's log has to have it too.
            stdout: false,
        };
        let call = Call::Attach {
            id: id.to_owned(),
            spec,
        };
        self.open(id.to_owned(), call, wanted).await
    }

    async fn open(&self, id: String, call: Call, wanted: Wanted) -> Result<Exec, ExecError> {
        let failed = |source| ExecError::Shim {
            id: id.clone(),
            source,
        };
        let stream = match sandbox::connect(self.run_dir()) {
            Ok(stream) => stream,
            Err(_) if !self.shim_alive() => return Err(failed(ShimError::Gone)),
            Err(source) => return Err(failed(self.unreachable(source))),
        };
        let mut connection = Connection::new(stream).map_err(|source| failed(self.unreachable(source)))?;
        connection.send(call).await.map_err(failed)?;
        let handles = match connection.next().await.map_err(failed)? {
            Message::Reply {
                result: Ok(Answer::Streams(handles)),
                ..
            } => handles,
            Message::Reply {
                result: Err(refusal), ..
            } => return Err(refused(id, refusal)),
            other => {
                return Err(failed(ShimError::Refused {
                    message: format!("{other:?}"),
                }));
            }
        };
        assemble(id.clone(), connection, handles, wanted).map_err(|source| ExecError::Streams { id, source })
    }
}

/// What the caller uses a terminal for, which is both at once.
#[derive(Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
}

/// Descriptors come in the order of the fields of [`Handles`].
fn assemble(
    id: String,
    mut connection: Connection,
    handles: Handles,
    wanted: Wanted,
) -> std::io::Result<Exec> {
    let mut take = |has: bool| match has {
        true => connection.take_descriptor().map(Some),
        false => Ok(None),
    };
    let terminal = take(handles.terminal)?
        .map(Terminal::new)
        .transpose()?
        .map(Arc::new);
    let stdin = take(handles.stdin)?;
    let stdout = take(handles.stdout)?;
    let stderr = take(handles.stderr)?;
    let process = take(handles.process)?;
    let of_terminal = |wanted: bool| terminal.clone().filter(|_| wanted);
    Ok(Exec {
        stdin: match stdin {
            Some(pipe) => Some(ExecWriter::pipe(pipe)?),
            None => of_terminal(wanted.stdin).map(ExecWriter::terminal),
        },
        stdout: match stdout {
            Some(pipe) => Some(ExecReader::pipe(pipe)?),
            None => of_terminal(wanted.stdout).map(ExecReader::terminal),
        },
        stderr: stderr.map(ExecReader::pipe).transpose()?,
        terminal,
        process,
        connection,
        container: id,
        exit: None,
    })
}

fn refused(id: String, refusal: Refusal) -> ExecError {
    match refusal {
        Refusal::UnknownContainer => ExecError::Unknown { id },
        Refusal::NotRunning => ExecError::NotRunning { id },
        Refusal::Start(failure) => ExecError::from_failure(id, failure.into()),
        other => ExecError::Shim {
            id,
            source: ShimError::Refused {
                message: format!("{other:?}"),
            },
        },
    }
}
