//! An attached client's copy of a container's output.
//!
//! Nothing is kept for a client but the part of one read that its pipe did not take: until it has, nothing more is
//! read from the container. A client that stands still is cut off, for no container may hang on it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, write};

/// How long a client may take nothing.
const STANDSTILL_MAX: Duration = Duration::from_secs(10);

/// The writing end of one client's pipe.
pub(super) struct Tee {
    client: u64,
    pipe: OwnedFd,
    pending: Vec<u8>,
    /// When the client has last taken something.
    moved: Instant,
}

impl Tee {
    /// Makes a pipe for a client; returns its end, too.
    pub(super) fn open(client: u64) -> io::Result<(Tee, OwnedFd)> {
        let (reader, pipe) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let tee = Tee {
            client,
            pipe,
            pending: Vec::new(),
            moved: Instant::now(),
        };
        Ok((tee, reader))
    }

    pub(super) fn belongs_to(&self, client: u64) -> bool {
        self.client == client
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Writes what the pipe takes and keeps the rest; returns whether the client is still there.
    pub(super) fn offer(&mut self, bytes: &[u8]) -> bool {
        if !self.is_behind() {
            self.moved = Instant::now();
        }
        self.pending.extend_from_slice(bytes);
        self.catch_up(Instant::now())
    }

    /// Writes what the pipe takes of the rest; returns whether the client is still there.
    pub(super) fn catch_up(&mut self, now: Instant) -> bool {
        while self.is_behind() {
            match write(&self.pipe, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                    self.moved = now;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return now.duration_since(self.moved) < STANDSTILL_MAX,
                Err(_) => return false,
            }
        }
        self.pending = Vec::new();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_stands_still_is_cut_off_and_one_that_reads_gets_all() {
        let (mut tee, reader) = Tee::open(1).unwrap();
        let bytes = vec![b'x'; 100_000];
        assert!(tee.offer(&bytes));
        assert!(tee.is_behind(), "a pipe holds 64 KiB");
        assert!(!tee.catch_up(Instant::now() + STANDSTILL_MAX));
        let mut got = 0;
        let mut buffer = [0; 4096];
        while let Ok(count) = nix::unistd::read(&reader, &mut buffer) {
            got += count;
            assert!(tee.catch_up(Instant::now()));
        }
        assert_eq!(got, bytes.len());
        assert!(!tee.is_behind());
        drop(reader);
        assert!(!tee.offer(b"x"));
    }
}
