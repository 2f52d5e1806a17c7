//! What the shim waits for.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Shim;
use crate::sys;

/// How often clients that are behind are looked at, to cut off those that stand still.
const BEHIND_MILLISECONDS: u16 = 1000;

/// After so long without work a shim gives back what it can have again: most pods do nothing most of the time.
const REST_AFTER_MILLISECONDS: u16 = 2000;

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
    /// Waits until there is something to do.
    pub(super) fn wait(&mut self) -> io::Result<Vec<Source>> {
        loop {
            let (waits, is_behind) = self.waits();
            let timeout = match (is_behind, self.is_at_rest) {
                (true, _) => PollTimeout::from(BEHIND_MILLISECONDS),
                (false, false) => PollTimeout::from(REST_AFTER_MILLISECONDS),
                (false, true) => PollTimeout::NONE,
            };
            let ready = waits.poll(timeout)?;
            if is_behind || !ready.is_empty() {
                self.is_at_rest = false;
                return Ok(ready);
            }
            sys::give_back_code();
            self.is_at_rest = true;
        }
    }

    /// What to wait for, and whether a client is behind.
    fn waits(&self) -> (Waits<'_>, bool) {
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
        let mut is_behind = false;
        for (id, container) in &self.containers {
            for (number, pipe) in container.log.pipes() {
                waits.sources.push(Source::Log(id.clone(), number));
                waits.polled.push(PollFd::new(pipe, PollFlags::POLLIN));
            }
            for (_, pipe) in container.log.behind() {
                waits.sources.push(Source::Behind(id.clone()));
                waits.polled.push(PollFd::new(pipe, PollFlags::POLLOUT));
                is_behind = true;
            }
        }
        (waits, is_behind)
    }
}

impl Waits<'_> {
    /// What is ready; when the time has passed, the clients that are behind.
    fn poll(mut self, timeout: PollTimeout) -> io::Result<Vec<Source>> {
        let passed = match poll(&mut self.polled, timeout) {
            Ok(count) => count == 0,
            // Nothing is ready; at worst the shim rests early.
            Err(Errno::EINTR) => false,
            Err(errno) => return Err(errno.into()),
        };
        let is_ready = |(source, descriptor): (Source, &PollFd<'_>)| {
            let ready = descriptor.any().unwrap_or(true) || passed && matches!(source, Source::Behind(_));
            ready.then_some(source)
        };
        Ok(self
            .sources
            .into_iter()
            .zip(&self.polled)
            .filter_map(is_ready)
            .collect())
    }
}
