//! What the shim does in forks: starts and removals of containers.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, pipe2, read};

use super::super::log::ContainerLog;
use super::super::{create, remove, report};
use super::execs::{Execution, receive_terminal};
use super::{Container, Input, ReplyTo, Shim};
use crate::layout::{ContainerPaths, ContainerRecord, Layout, is_usable_name, write_json};
use crate::protocol::{Answer, Refusal, StartFailure};
use crate::sandbox::with_short_path;
use crate::spec::{ContainerSpec, ContainerState, PidNamespace, Started, User};
use crate::sys;
use crate::users::IDS_PER_POD;

/// A fork at work.
pub(super) struct Operation {
    pub(super) pipe: OwnedFd,
    text: Vec<u8>,
    pub(super) kind: OperationKind,
    reply_to: ReplyTo,
}

/// What a fork is for.
pub(super) enum OperationKind {
    Start {
        spec: Box<ContainerSpec>,
        outputs: Outputs,
        input: Input,
    },
    Exec(Execution),
    /// Deletes what a failed start has left, before it is reported.
    CleanUp {
        failure: StartFailure,
    },
    Remove {
        id: String,
    },
}

/// Where a container's output will come from.
pub(super) enum Outputs {
    Pipes(Vec<OwnedFd>),
    /// A terminal, whose master comes over this socket.
    Console(UnixListener),
}

impl Shim {
    pub(super) fn begin_start(
        &mut self,
        spec: Box<ContainerSpec>,
        reply_to: ReplyTo,
    ) -> Result<(), StartFailure> {
        self.check(&spec)?;
        let failed = |error: io::Error| StartFailure::Create {
            reason: error.to_string(),
        };
        let neighbour = self.neighbour(&spec)?;
        let (streams, outputs, input) = connect(&spec, &self.layout).map_err(failed)?;
        let pipe = self
            .fork(|shim, report| {
                create::run(
                    create::Creation {
                        layout: &shim.layout,
                        sandbox: &shim.sandbox,
                        cgroups: &shim.cgroups,
                        container: &spec,
                        streams,
                        neighbour,
                        node_mounts: &shim.node_mounts,
                        users: shim.users.as_ref(),
                    },
                    report,
                );
            })
            .map_err(failed)?;
        self.begin(pipe, OperationKind::Start { spec, outputs, input }, reply_to);
        Ok(())
    }

    /// The process whose pid namespace the container joins: only this process reaps it, so the pid is its own.
    fn neighbour(&self, spec: &ContainerSpec) -> Result<Option<i32>, StartFailure> {
        let target = match (self.sandbox.spec.pids, &spec.target) {
            (PidNamespace::Container, Some(target)) => target,
            _ => return Ok(self.pause),
        };
        let running = |container: &&Container| container.state.finished.is_none();
        match self.containers.get(target).filter(running) {
            Some(container) => Ok(Some(container.state.pid)),
            None => Err(StartFailure::Create {
                reason: format!("container {target} is not running: its processes cannot be joined"),
            }),
        }
    }

    fn check(&self, spec: &ContainerSpec) -> Result<(), StartFailure> {
        let starting = self.operations.iter().any(
            |operation| matches!(&operation.kind, OperationKind::Start { spec: other, .. } if other.id == spec.id),
        );
        let reason = if !is_usable_name(&spec.id) {
            format!("{:?} is not a usable container id", spec.id)
        } else if self.containers.contains_key(&spec.id) || starting {
            format!("container {} exists already", spec.id)
        } else if let Some(id) = oversized_id(&spec.user) {
            format!("{id} is not a user or group id: they end at {}", i32::MAX)
        } else if let Some(id) = self.users.as_ref().and_then(|users| users.unknown_id(&spec.user)) {
            format!(
                "{id} is not a user or group id of a pod with hostUsers: false: they end at {}",
                IDS_PER_POD - 1
            )
        } else if self.shutdown.is_some() {
            "the pod is being destroyed".to_owned()
        } else {
            return Ok(());
        };
        Err(StartFailure::BadSpec { reason })
    }

    /// Whether a removal has begun; `false`: there is nothing to remove.
    pub(super) fn begin_remove(&mut self, id: &str, reply_to: ReplyTo) -> Result<bool, Refusal> {
        let Some(container) = self.containers.get(id) else {
            return Ok(false);
        };
        if container.state.finished.is_none() {
            return Err(Refusal::StillRunning);
        }
        let pipe = self
            .fork_removal(id)
            .map_err(|error| Refusal::Other(error.to_string()))?;
        self.begin(pipe, OperationKind::Remove { id: id.to_owned() }, reply_to);
        Ok(true)
    }

    pub(super) fn begin(&mut self, pipe: OwnedFd, kind: OperationKind, reply_to: ReplyTo) {
        self.operations.push(Operation {
            pipe,
            text: Vec::new(),
            kind,
            reply_to,
        });
    }

    fn fork_removal(&self, id: &str) -> io::Result<OwnedFd> {
        self.fork(|shim, report| {
            let cgroup = create::container_cgroup(&shim.sandbox, id);
            let leftovers = remove::Leftovers {
                paths: &shim.layout.container(id),
                cgroups: &shim.cgroups,
                cgroup: &cgroup,
                users: shim.users.as_ref(),
            };
            remove::run(&leftovers, &report);
        })
    }

    /// Runs `work` in a fork; what it reports comes out of the returned pipe.
    pub(super) fn fork(&self, work: impl FnOnce(&Shim, File)) -> io::Result<OwnedFd> {
        let (reader, writer) = pipe_from_program()?;
        if let ForkResult::Child = sys::fork()? {
            // A panic must not unwind into the loop: there would be two shims.
            let outcome = catch_unwind(AssertUnwindSafe(|| work(self, File::from(writer))));
            sys::exit_now(if outcome.is_ok() { 0 } else { 101 });
        }
        Ok(reader)
    }

    pub(super) fn read_report(&mut self, index: usize) {
        let mut buffer = [0; 4096];
        let operation = &mut self.operations[index];
        match read(&operation.pipe, &mut buffer) {
            Ok(count) if count > 0 => operation.text.extend_from_slice(&buffer[..count]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // All writers have closed it: the fork is done, and the container's program is executed.
            _ => {
                let operation = self.operations.remove(index);
                self.conclude(operation);
            }
        }
    }

    fn conclude(&mut self, operation: Operation) {
        let Operation {
            text, kind, reply_to, ..
        } = operation;
        match kind {
            OperationKind::Start { spec, outputs, input } => match report::start_outcome(&text) {
                Ok(pid) => self.add(*spec, pid, outputs, input, reply_to),
                Err(failure) => self.clean_up(&spec.id, failure, reply_to),
            },
            OperationKind::Exec(execution) => {
                self.conclude_exec(execution, report::start_outcome(&text), reply_to);
            }
            OperationKind::CleanUp { failure } => self.reply(reply_to, Err(Refusal::Start(failure))),
            OperationKind::Remove { id } => {
                let result = report::removal_outcome(&text);
                if result.is_ok() {
                    self.containers.remove(&id);
                }
                self.reply(reply_to, result.map(|()| Answer::Done).map_err(Refusal::Other));
            }
        }
        self.settle_early_exits();
    }

    fn add(&mut self, spec: ContainerSpec, pid: i32, outputs: Outputs, input: Input, reply_to: ReplyTo) {
        let (log, input) = match open_log(&spec, outputs, input) {
            Ok(opened) => opened,
            Err(reason) => {
                // Its exit is nobody's, and what it leaves goes with the clean-up.
                sys::send_signal(pid, libc::SIGKILL).ok();
                return self.clean_up(&spec.id, StartFailure::Create { reason }, reply_to);
            }
        };
        let started = Started {
            pid,
            started_at: Timestamp::now(),
        };
        let state = ContainerState {
            id: spec.id.clone(),
            name: spec.name,
            attempt: spec.attempt,
            pid,
            started_at: started.started_at,
            log_path: spec.log_path,
            finished: None,
        };
        let record = ContainerRecord {
            state: state.clone(),
            // Gone already: then no process is confused with it either.
            start_ticks: sys::start_ticks(pid).unwrap_or(0),
        };
        // A full disk does not end a container that runs; only a later agent without this shim misses it.
        write_json(&self.layout.container(&spec.id).record(), &record).ok();
        self.containers.insert(spec.id, Container { state, log, input });
        self.reply(reply_to, Ok(Answer::Started(started)));
        if let Some(reply_to) = self.shutdown {
            self.begin_shutdown(reply_to);
        }
    }

    fn clean_up(&mut self, id: &str, failure: StartFailure, reply_to: ReplyTo) {
        match self.fork_removal(id) {
            Ok(pipe) => self.begin(pipe, OperationKind::CleanUp { failure }, reply_to),
            Err(_) => self.reply(reply_to, Err(Refusal::Start(failure))),
        }
    }
}

/// An id that the kernel might take for "leave it as it is" (-1), or that Kubernetes does not know.
fn oversized_id(user: &User) -> Option<u32> {
    let mut ids = [user.uid, user.gid]
        .into_iter()
        .chain(user.additional_gids.iter().copied());
    ids.find(|id| i32::try_from(*id).is_err())
}

/// Makes a container's pipes, or for a terminal the socket that it comes over.
fn connect(spec: &ContainerSpec, layout: &Layout) -> io::Result<(create::Streams, Outputs, Input)> {
    if spec.terminal {
        let bundle = layout.container(&spec.id).bundle;
        std::fs::create_dir_all(&bundle)?;
        let listener = with_short_path(&bundle, |folder| {
            UnixListener::bind(folder.join(ContainerPaths::console_name()))
        })?;
        listener.set_nonblocking(true)?;
        return Ok((
            create::Streams::Terminal,
            Outputs::Console(listener),
            Input::Nothing,
        ));
    }
    let (stdout, stdout_writer) = pipe_from_program()?;
    let (stderr, stderr_writer) = pipe_from_program()?;
    let (stdin, input) = match spec.stdin {
        true => {
            let (reader, writer) = pipe_to_program()?;
            let once = spec.stdin_once;
            (Some(reader), Input::Pipe { writer, once })
        }
        false => (None, Input::Nothing),
    };
    let streams = create::Streams::Pipes {
        stdin,
        stdout: stdout_writer,
        stderr: stderr_writer,
    };
    Ok((streams, Outputs::Pipes(vec![stdout, stderr]), input))
}

/// Opens the log of a container that has started, on its pipes or on its terminal, which has come by now.
fn open_log(spec: &ContainerSpec, outputs: Outputs, input: Input) -> Result<(ContainerLog, Input), String> {
    let (pipes, input) = match outputs {
        Outputs::Pipes(pipes) => (pipes, input),
        Outputs::Console(listener) => {
            let terminal = accept_terminal(&listener)
                .map_err(|error| format!("cannot take over its terminal: {error}"))?;
            (vec![terminal.0], Input::Terminal(terminal.1))
        }
    };
    let log = ContainerLog::open(&spec.log_path, pipes)
        .map_err(|error| format!("cannot open the log {}: {error}", spec.log_path.display()))?;
    Ok((log, input))
}

/// The master of a container's terminal, twice: to read from and to give away.
fn accept_terminal(listener: &UnixListener) -> io::Result<(OwnedFd, OwnedFd)> {
    let (socket, _) = listener.accept()?;
    let master = receive_terminal(&socket)?;
    Ok((master.try_clone()?, master))
}

/// A pipe of which the reading end, the shim's or the agent's, never blocks.
pub(super) fn pipe_from_program() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}

/// A pipe of which the writing end, the agent's, never blocks.
pub(super) fn pipe_to_program() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    Ok((reader, writer))
}
