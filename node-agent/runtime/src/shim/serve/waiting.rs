//! What the shim waits for.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Shim;

/// How often clients that are behind are looked at, to cut off those that stand still.
const BEHIND_MILLISECONDS: u16 = 1000;

/// What has become ready.
pub(super) enum Source {
    Listener,
    Children,
    Client(u64),
    Operation(usize),
    /// A container's stream.
    Log(String, usize),
    /// Clients attached to a container's stream.
    Behind(String),
}

/// What `poll` is asked for.
#[derive(Default)]
struct Waits<'a> {
    sources: Vec<Source>,
    polled: Vec<PollFd<'a>>,
}

impl<'a> Waits<'a> {
    fn add(&mut self, source: Source, descriptor: &'a impl AsFd, flags: PollFlags) {
        self.sources.push(source);
        self.polled.push(PollFd::new(descriptor.as_fd(), flags));
    }
}

impl Shim {
    pub(super) fn wait(&self) -> io::Result<Vec<Source>> {
        let mut waits = Waits::default();
        waits.add(Source::Listener, &self.listener, PollFlags::POLLIN);
        waits.add(Source::Children, &self.signals, PollFlags::POLLIN);
        for (number, client) in &self.clients {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, client.has_outgoing());
            waits.add(Source::Client(*number), client, flags);
        }
        for (index, operation) in self.operations.iter().enumerate() {
            waits.add(Source::Operation(index), &operation.pipe, PollFlags::POLLIN);
        }
        let mut timeout = PollTimeout::NONE;
        for (id, container) in &self.containers {
            for (number, pipe) in container.log.pipes() {
                waits.sources.push(Source::Log(id.clone(), number));
                waits.polled.push(PollFd::new(pipe, PollFlags::POLLIN));
            }
            for (_, pipe) in container.log.behind() {
                waits.sources.push(Source::Behind(id.clone()));
                waits.polled.push(PollFd::new(pipe, PollFlags::POLLOUT));
                timeout = PollTimeout::from(BEHIND_MILLISECONDS);
            }
        }
        self.poll(waits, timeout)
    }

    fn poll(&self, waits: Waits<'_>, timeout: PollTimeout) -> io::Result<Vec<Source>> {
        let Waits { sources, mut polled } = waits;
        let passed = match poll(&mut polled, timeout) {
            Ok(count) => count == 0,
            Err(Errno::EINTR) => false,
            Err(errno) => return Err(errno.into()),
        };
        let is_ready = |(source, descriptor): (Source, &PollFd<'_>)| {
            let ready = descriptor.any().unwrap_or(true) || passed && matches!(source, Source::Behind(_));
            ready.then_some(source)
        };
        Ok(sources.into_iter().zip(&polled).filter_map(is_ready).collect())
    }
}
