//! The shim's loop: one `poll` over agents, forks, log pipes and children.
//!
//! *Guarantees*: an exit code is on disk before anybody hears of it; a container is known before its exit is
//! looked at, however fast it ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{ForkResult, pipe2, read};
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::client::Client;
use super::log::ContainerLog;
use super::{create, remove, report};
use crate::cgroup::Cgroups;
use crate::layout::{ContainerRecord, Layout, SandboxRecord, is_usable_name, write_json};
use crate::protocol::{Answer, Call, Message, Refusal, Request, StartFailure};
use crate::spec::{ContainerSpec, ContainerState, Exit, Started};
use crate::sys;

/// The state of one shim.
pub(super) struct Shim {
    layout: Layout,
    sandbox: SandboxRecord,
    cgroups: Cgroups,
    listener: UnixListener,
    signals: SignalFd,
    clients: BTreeMap<u64, Client>,
    clients_seen: u64,
    containers: BTreeMap<String, Container>,
    operations: Vec<Operation>,
    /// Exits of processes that a running start may turn out to have made.
    early_exits: Vec<(i32, WaitStatus)>,
    /// Who asked the shim to end.
    shutdown: Option<ReplyTo>,
}

struct Container {
    state: ContainerState,
    log: ContainerLog,
}

/// A fork at work.
struct Operation {
    pipe: OwnedFd,
    text: Vec<u8>,
    kind: OperationKind,
    reply_to: ReplyTo,
}

enum OperationKind {
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

#[derive(Clone, Copy)]
struct ReplyTo {
    client: u64,
    request: u64,
}

/// What has become ready.
enum Source {
    Listener,
    Children,
    Client(u64),
    Operation(usize),
    Log(String, usize),
}

impl Shim {
    pub(super) fn new(
        layout: Layout,
        sandbox: SandboxRecord,
        cgroups: Cgroups,
        listener: UnixListener,
        signals: SignalFd,
    ) -> Shim {
        Shim {
            layout,
            sandbox,
            cgroups,
            listener,
            signals,
            clients: BTreeMap::new(),
            clients_seen: 0,
            containers: BTreeMap::new(),
            operations: Vec::new(),
            early_exits: Vec::new(),
            shutdown: None,
        }
    }

    /// Serves until an agent has asked for the end and everything has ended.
    pub(super) fn serve(mut self) -> io::Result<()> {
        loop {
            // Operations are taken out by position, so the last go first.
            let mut ready = self.wait()?;
            ready.sort_by_key(|source| match source {
                Source::Operation(index) => usize::MAX - index,
                _ => 0,
            });
            for source in ready {
                self.attend(source)?;
            }
            if self.is_done() {
                return self.say_goodbye();
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![Source::Listener, Source::Children];
        let mut polled = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        for (number, client) in &self.clients {
            let flags = if client.has_outgoing() {
                PollFlags::POLLIN | PollFlags::POLLOUT
            } else {
                PollFlags::POLLIN
            };
            sources.push(Source::Client(*number));
            polled.push(PollFd::new(client.descriptor(), flags));
        }
        for (index, operation) in self.operations.iter().enumerate() {
            sources.push(Source::Operation(index));
            polled.push(PollFd::new(operation.pipe.as_fd(), PollFlags::POLLIN));
        }
        for (id, container) in &self.containers {
            for (number, pipe) in container.log.pipes() {
                sources.push(Source::Log(id.clone(), number));
                polled.push(PollFd::new(pipe, PollFlags::POLLIN));
            }
        }
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = polled.iter().map(|descriptor| descriptor.any().unwrap_or(true));
        Ok(sources
            .into_iter()
            .zip(ready)
            .filter_map(|(source, ready)| ready.then_some(source))
            .collect())
    }

    fn attend(&mut self, source: Source) -> io::Result<()> {
        match source {
            Source::Listener => self.accept(),
            Source::Children => return self.reap(),
            Source::Client(number) => self.listen_to(number),
            Source::Operation(index) => self.read_report(index),
            Source::Log(id, number) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.log.pump(number);
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        if let Ok((stream, _)) = self.listener.accept()
            && let Ok(client) = Client::new(stream)
        {
            self.clients_seen += 1;
            self.clients.insert(self.clients_seen, client);
        }
    }

    fn listen_to(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let received = client.flush().and_then(|()| client.receive());
        let Ok(requests) = received else {
            self.clients.remove(&number);
            return;
        };
        for Request { id, call } in requests {
            self.carry_out(
                call,
                ReplyTo {
                    client: number,
                    request: id,
                },
            );
        }
    }

    fn carry_out(&mut self, call: Call, reply_to: ReplyTo) {
        let result = match call {
            Call::Hello => Ok(self.hello()),
            Call::Start(spec) => match self.begin_start(spec, reply_to) {
                Ok(()) => return,
                Err(failure) => Err(Refusal::Start(failure)),
            },
            Call::Kill { id, signal } => self.kill(&id, signal),
            Call::Remove { id } => match self.begin_remove(&id, reply_to) {
                Ok(true) => return,
                Ok(false) => Ok(Answer::Done),
                Err(refusal) => Err(refusal),
            },
            Call::Shutdown => {
                self.begin_shutdown(reply_to);
                return;
            }
        };
        self.reply(reply_to, result);
    }

    fn reply(&mut self, reply_to: ReplyTo, result: Result<Answer, Refusal>) {
        let message = Message::Reply {
            id: reply_to.request,
            result,
        };
        if let Some(client) = self.clients.get_mut(&reply_to.client)
            && client.send(&message).is_err()
        {
            self.clients.remove(&reply_to.client);
        }
    }

    fn hello(&self) -> Answer {
        let containers = self
            .containers
            .values()
            .map(|container| container.state.clone())
            .collect();
        Answer::Hello {
            pid: std::process::id().cast_signed(),
            containers,
        }
    }

    fn kill(&self, id: &str, signal: i32) -> Result<Answer, Refusal> {
        let container = self.containers.get(id).ok_or(Refusal::UnknownContainer)?;
        // The pid is the container's until `reap` has seen it end, for nobody else reaps it. SIGKILL of the
        // init ends all processes of its pid namespace.
        if container.state.finished.is_none() {
            sys::send_signal(container.state.pid, signal)
                .map_err(|error| Refusal::Errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
        }
        Ok(Answer::Done)
    }

    fn begin_shutdown(&mut self, reply_to: ReplyTo) {
        self.shutdown = Some(reply_to);
        for container in self
            .containers
            .values()
            .filter(|container| container.state.finished.is_none())
        {
            // It has just ended if this fails; `reap` will tell.
            sys::send_signal(container.state.pid, libc::SIGKILL).ok();
        }
    }

    fn is_done(&self) -> bool {
        self.shutdown.is_some()
            && self.operations.is_empty()
            && self
                .containers
                .values()
                .all(|container| container.state.finished.is_some())
    }

    fn say_goodbye(mut self) -> io::Result<()> {
        if let Some(reply_to) = self.shutdown {
            self.reply(reply_to, Ok(Answer::Done));
        }
        Ok(())
    }

    fn begin_start(&mut self, spec: Box<ContainerSpec>, reply_to: ReplyTo) -> Result<(), StartFailure> {
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
    fn begin_remove(&mut self, id: &str, reply_to: ReplyTo) -> Result<bool, Refusal> {
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

    fn read_report(&mut self, index: usize) {
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

    fn reap(&mut self) -> io::Result<()> {
        while self.signals.read_signal()?.is_some() {}
        // An error is ECHILD: no child is left.
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.early_exits.push((pid.as_raw_nonzero().get(), status));
        }
        self.settle_early_exits();
        Ok(())
    }

    /// Gives exits to the containers they belong to; keeps the others while a start is at work.
    fn settle_early_exits(&mut self) {
        for (pid, status) in std::mem::take(&mut self.early_exits) {
            let owner = self
                .containers
                .iter()
                .find(|(_, container)| container.state.finished.is_none() && container.state.pid == pid);
            match owner.map(|(id, _)| id.clone()) {
                Some(id) => self.finish(&id, status),
                None if self.is_starting() => self.early_exits.push((pid, status)),
                None => {}
            }
        }
    }

    fn is_starting(&self) -> bool {
        self.operations
            .iter()
            .any(|operation| matches!(operation.kind, OperationKind::Start { .. }))
    }

    fn finish(&mut self, id: &str, status: WaitStatus) {
        let oom_kills = self
            .cgroups
            .oom_kills(&create::container_cgroup(&self.sandbox, id));
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.log.finish();
        let exit = exit_of(status, oom_kills > 0);
        container.state.finished = Some(exit);
        // With a full disk the connected agent still hears of it.
        write_json(&self.layout.container(id).exit(), &exit).ok();
        let message = Message::Exited {
            id: id.to_owned(),
            exit,
        };
        self.clients.retain(|_, client| client.send(&message).is_ok());
    }
}

fn exit_of(status: WaitStatus, oom: bool) -> Exit {
    let signal = status.terminating_signal();
    let code = signal
        .map(|signal| 128 + signal)
        .or(status.exit_status())
        .unwrap_or(137);
    Exit {
        code,
        signal,
        oom_killed: oom && code != 0,
        finished_at: Timestamp::now(),
        unknown: false,
    }
}

/// A pipe of which the shim's end never blocks.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}
