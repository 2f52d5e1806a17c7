//! The shim's loop: one `poll` over agents, forks, log pipes and children.
//!
//! *Guarantees*: an exit code is on disk before anybody hears of it; a container is known before its exit is
//! looked at, however fast it ends.

mod attachments;
mod children;
mod execs;
mod operations;
mod waiting;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use nix::sys::signalfd::SignalFd;
use rustix::process::WaitStatus;

use self::attachments::Streams;
use self::operations::Operation;
use self::waiting::Source;
use super::client::{Client, Interest};
use super::log::ContainerLog;
use super::mapping::Users;
use crate::cgroup::Cgroups;
use crate::layout::{Layout, SandboxRecord};
use crate::protocol::{Answer, Call, Message, Refusal, Request};
use crate::spec::ContainerState;
use crate::sys;

/// What a shim works with.
pub(super) struct PodPlace {
    pub(super) layout: Layout,
    pub(super) sandbox: SandboxRecord,
    pub(super) cgroups: Cgroups,
    /// The first process of the pid namespace that the containers share, if they do.
    pub(super) pause: Option<i32>,
    /// The node's mount namespace.
    pub(super) node_mounts: OwnedFd,
    /// The pod's users, if they are not the node's.
    pub(super) users: Option<Users>,
}

/// The state of one shim.
pub(super) struct Shim {
    layout: Layout,
    sandbox: SandboxRecord,
    cgroups: Cgroups,
    pause: Option<i32>,
    /// The pod's pid namespace has ended, and with it all that the pod can do.
    pause_has_ended: bool,
    node_mounts: OwnedFd,
    users: Option<Users>,
    listener: UnixListener,
    signals: SignalFd,
    clients: BTreeMap<u64, Client>,
    clients_seen: u64,
    containers: BTreeMap<String, Container>,
    /// By process id.
    programs: BTreeMap<i32, ExecutedProgram>,
    operations: Vec<Operation>,
    /// Exits of processes that a running start may turn out to have made.
    early_exits: Vec<(i32, WaitStatus)>,
    /// Who asked the shim to end.
    shutdown: Option<ReplyTo>,
    /// Nothing has happened since it gave back what it does not need for waiting.
    is_at_rest: bool,
}

struct Container {
    state: ContainerState,
    log: ContainerLog,
    input: Input,
}

/// What an attached client can write to.
enum Input {
    /// The container has no stdin.
    Nothing,
    /// The other end of its stdin, kept open for the next client, or for one only.
    Pipe { writer: OwnedFd, once: bool },
    /// The master of its terminal.
    Terminal(OwnedFd),
}

/// A program that was executed in a container.
struct ExecutedProgram {
    container: String,
    /// Whom its end is told.
    client: u64,
}

#[derive(Clone, Copy)]
struct ReplyTo {
    client: u64,
    request: u64,
}

impl Shim {
    pub(super) fn new(pod: PodPlace, listener: UnixListener, signals: SignalFd) -> Shim {
        Shim {
            layout: pod.layout,
            sandbox: pod.sandbox,
            cgroups: pod.cgroups,
            pause: pod.pause,
            pause_has_ended: false,
            node_mounts: pod.node_mounts,
            users: pod.users,
            listener,
            signals,
            clients: BTreeMap::new(),
            clients_seen: 0,
            containers: BTreeMap::new(),
            programs: BTreeMap::new(),
            operations: Vec::new(),
            early_exits: Vec::new(),
            shutdown: None,
            is_at_rest: false,
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
            Source::Behind(id) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.log.catch_up();
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
            self.forget_client(number);
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
            Call::Hello => Ok(self.hello(reply_to)),
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
            Call::Exec(spec) => match self.begin_exec(&spec, reply_to) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Call::Attach { id, spec } => match self.attach(id, &spec, reply_to) {
                Ok(streams) => {
                    self.reply_with(reply_to, streams);
                    return;
                }
                Err(refusal) => Err(refusal),
            },
        };
        self.reply(reply_to, result);
    }

    fn reply(&mut self, reply_to: ReplyTo, result: Result<Answer, Refusal>) {
        let message = Message::Reply {
            id: reply_to.request,
            result,
        };
        self.tell(reply_to.client, &message, Vec::new());
    }

    fn reply_with(&mut self, reply_to: ReplyTo, streams: Streams) {
        let message = Message::Reply {
            id: reply_to.request,
            result: Ok(Answer::Streams(streams.handles())),
        };
        self.tell(reply_to.client, &message, streams.into_descriptors());
    }

    fn tell(&mut self, number: u64, message: &Message, descriptors: Vec<OwnedFd>) {
        if let Some(client) = self.clients.get_mut(&number)
            && client.send(message, descriptors).is_err()
        {
            self.forget_client(number);
        }
    }

    fn forget_client(&mut self, number: u64) {
        self.clients.remove(&number);
        for container in self.containers.values_mut() {
            container.log.detach(number);
        }
    }

    fn hello(&mut self, reply_to: ReplyTo) -> Answer {
        if let Some(client) = self.clients.get_mut(&reply_to.client) {
            client.interest = Interest::All;
        }
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
        (self.shutdown.is_some() || self.pause_has_ended)
            && self.operations.is_empty()
            && self
                .containers
                .values()
                .all(|container| container.state.finished.is_some())
    }

    fn say_goodbye(mut self) -> io::Result<()> {
        if let Some(pause) = self.pause.filter(|_| !self.pause_has_ended) {
            // It has just ended if this fails.
            sys::send_signal(pause, libc::SIGKILL).ok();
        }
        if let Some(reply_to) = self.shutdown {
            self.reply(reply_to, Ok(Answer::Done));
        }
        Ok(())
    }
}
