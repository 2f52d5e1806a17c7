//! What the shim does for a program that is executed in a container.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, PidfdFlags, WaitStatus, pidfd_open};

use super::super::{create, exec};
use super::attachments::Streams;
use super::children::exit_of;
use super::operations::{OperationKind, pipe_from_program, pipe_to_program};
use super::{ExecutedProgram, ReplyTo, Shim};
use crate::descriptors;
use crate::exec::ExecSpec;
use crate::protocol::{Message, Refusal, StartFailure};

/// An execution under way.
pub(super) struct Execution {
    container: String,
    streams: Streams,
    /// Where the master of its terminal comes from.
    console: Option<UnixStream>,
}

/// The program's ends of its streams.
#[derive(Default)]
struct Ends {
    streams: [Option<OwnedFd>; 3],
    console: Option<OwnedFd>,
}

impl Shim {
    pub(super) fn begin_exec(&mut self, spec: &ExecSpec, reply_to: ReplyTo) -> Result<(), Refusal> {
        let container = self
            .containers
            .get(&spec.container)
            .ok_or(Refusal::UnknownContainer)?;
        if container.state.finished.is_some() || self.shutdown.is_some() {
            return Err(Refusal::NotRunning);
        }
        let pid = container.state.pid;
        let failed = |error: io::Error| Refusal::Other(error.to_string());
        let (execution, ends) = connect(spec).map_err(failed)?;
        let pipe = self
            .fork(|shim, report| {
                exec::run(
                    exec::Execution {
                        paths: &shim.layout.container(&spec.container),
                        cgroups: &shim.cgroups,
                        cgroup: &create::container_cgroup(&shim.sandbox, &spec.container),
                        pid,
                        users: shim.users.as_ref(),
                        spec,
                        streams: ends.streams,
                        console: ends.console,
                    },
                    &report,
                );
            })
            .map_err(failed)?;
        self.begin(pipe, OperationKind::Exec(execution), reply_to);
        Ok(())
    }

    pub(super) fn conclude_exec(
        &mut self,
        execution: Execution,
        outcome: Result<i32, StartFailure>,
        reply_to: ReplyTo,
    ) {
        let pid = match outcome {
            Ok(pid) => pid,
            Err(failure) => return self.reply(reply_to, Err(Refusal::Start(failure))),
        };
        let mut streams = execution.streams;
        if let Some(console) = execution.console {
            match receive_terminal(&console) {
                Ok(terminal) => streams.terminal = Some(terminal),
                Err(error) => return self.reply(reply_to, Err(Refusal::Other(error.to_string()))),
            }
        }
        // Only this process reaps it, so the pid is its own until `early_exits` has it.
        if !self.early_exits.iter().any(|(early, _)| *early == pid) {
            streams.process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        }
        self.programs.insert(
            pid,
            ExecutedProgram {
                container: execution.container,
                client: reply_to.client,
            },
        );
        self.reply_with(reply_to, streams);
    }

    /// Tells whoever had a program executed that it has ended; returns whether `pid` was one.
    pub(super) fn finish_program(&mut self, pid: i32, status: WaitStatus) -> bool {
        let Some(program) = self.programs.remove(&pid) else {
            return false;
        };
        let message = Message::Exited {
            id: program.container,
            exit: exit_of(status, false),
        };
        self.tell(program.client, &message, Vec::new());
        true
    }
}

/// Makes the pipes that the caller wants, or for a terminal the socket that it comes over.
fn connect(spec: &ExecSpec) -> io::Result<(Execution, Ends)> {
    let mut execution = Execution {
        container: spec.container.clone(),
        streams: Streams::default(),
        console: None,
    };
    let mut ends = Ends::default();
    if spec.tty {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        (execution.console, ends.console) = (Some(ours), Some(theirs.into()));
        return Ok((execution, ends));
    }
    if spec.stdin {
        let (reader, writer) = pipe_to_program()?;
        (ends.streams[0], execution.streams.stdin) = (Some(reader), Some(writer));
    }
    if spec.stdout {
        let (reader, writer) = pipe_from_program()?;
        (execution.streams.stdout, ends.streams[1]) = (Some(reader), Some(writer));
    }
    if spec.stderr {
        let (reader, writer) = pipe_from_program()?;
        (execution.streams.stderr, ends.streams[2]) = (Some(reader), Some(writer));
    }
    Ok((execution, ends))
}

/// The master of a terminal, which has been sent already.
pub(super) fn receive_terminal(console: &UnixStream) -> io::Result<OwnedFd> {
    let (_, descriptors) = descriptors::receive(console, &mut [0; 256])?;
    let master = descriptors
        .into_iter()
        .next()
        .ok_or_else(|| io::Error::other("no terminal came"))?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok(master)
}
