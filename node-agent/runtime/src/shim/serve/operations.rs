//! What the shim does in forks: starts and removals of containers.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, pipe2, read};

use super::super::log::ContainerLog;
use super::super::{create, remove, report};
use super::{Container, ReplyTo, Shim};
use crate::layout::{ContainerRecord, is_usable_name, write_json};
use crate::protocol::{Answer, Refusal, StartFailure};
use crate::spec::{ContainerSpec, ContainerState, Started};
use crate::sys;

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
        log: ContainerLog,
    },
    /// Deletes what a failed start has left, before it is reported.
    CleanUp {
        failure: StartFailure,
    },
    Remove {
        id: String,
    },
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
        let (stdout, stdout_writer) = pipe().map_err(failed)?;
        let (stderr, stderr_writer) = pipe().map_err(failed)?;
        let log =
            ContainerLog::open(&spec.log_path, stdout, stderr).map_err(|error| StartFailure::Create {
                reason: format!("cannot open the log {}: {error}", spec.log_path.display()),
            })?;
        let pipe = self
            .fork(|shim, report| {
                create::run(
                    create::Creation {
                        layout: &shim.layout,
                        sandbox: &shim.sandbox,
                        cgroups: &shim.cgroups,
                        container: &spec,
                        stdout: stdout_writer,
                        stderr: stderr_writer,
                    },
                    report,
                );
            })
            .map_err(failed)?;
        self.begin(pipe, OperationKind::Start { spec, log }, reply_to);
        Ok(())
    }

    fn check(&self, spec: &ContainerSpec) -> Result<(), StartFailure> {
        let starting = self.operations.iter().any(
            |operation| matches!(&operation.kind, OperationKind::Start { spec: other, .. } if other.id == spec.id),
        );
        let reason = if !is_usable_name(&spec.id) {
            format!("{:?} is not a usable container id", spec.id)
        } else if self.containers.contains_key(&spec.id) || starting {
            format!("container {} exists already", spec.id)
        } else if spec.terminal || spec.stdin {
            "terminals and stdin are not supported yet".to_owned()
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

    fn begin(&mut self, pipe: OwnedFd, kind: OperationKind, reply_to: ReplyTo) {
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
            remove::run(&shim.layout.container(id), &shim.cgroups, &cgroup, &report);
        })
    }

    /// Runs `work` in a fork; what it reports comes out of the returned pipe.
    fn fork(&self, work: impl FnOnce(&Shim, File)) -> io::Result<OwnedFd> {
        let (reader, writer) = pipe()?;
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
            OperationKind::Start { spec, log } => match report::start_outcome(&text) {
                Ok(pid) => self.add(*spec, pid, log, reply_to),
                Err(failure) => self.clean_up(&spec.id, failure, reply_to),
            },
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

    fn add(&mut self, spec: ContainerSpec, pid: i32, log: ContainerLog, reply_to: ReplyTo) {
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
        self.containers.insert(spec.id, Container { state, log });
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

/// A pipe of which the shim's end never blocks.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}
