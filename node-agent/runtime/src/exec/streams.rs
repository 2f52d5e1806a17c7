//! The ends of a program's streams.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use crate::{sys, terminal};

/// The master of a terminal, read and written from several places.
#[derive(Debug)]
pub(super) struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> io::Result<Terminal> {
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Terminal {
            master: sys::register(master)?,
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.master.get_ref().as_fd()
    }

    fn poll_read(&self, ctx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.master.poll_read_ready(ctx))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|master| Ok(terminal::read_master(master, &mut *unfilled)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_write(&self, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.master.poll_write_ready(ctx))?;
            match guard.try_io(|master| Ok(rustix::io::write(master, bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }
}

/// Reads what a program writes; at its end when nobody can write to it any more.
#[derive(Debug)]
pub struct ExecReader(Source);

#[derive(Debug)]
enum Source {
    Pipe(pipe::Receiver),
    Terminal(Arc<Terminal>),
}

/// Read at once by [`ExecReader::read_now`].
const READ_BYTES: usize = 4 << 10;

impl ExecReader {
    /// Reads the end of a pipe that never blocks. Needs tokio's runtime.
    pub fn pipe(descriptor: OwnedFd) -> io::Result<ExecReader> {
        Ok(ExecReader(Source::Pipe(pipe::Receiver::from_owned_fd(
            descriptor,
        )?)))
    }

    /// What is there now, or nothing: asks the kernel, whatever the runtime has heard of it so far.
    ///
    /// *Guarantees*: called after a program's end until there is nothing, it has given all that the program wrote. A
    /// wait with a limit does not: on a busy machine the limit may be over before anybody has looked.
    pub fn read_now(&mut self) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(READ_BYTES);
        let read = loop {
            let read = match &self.0 {
                Source::Pipe(pipe) => rustix::io::read(pipe, &mut buffer[..]),
                Source::Terminal(terminal) => terminal::read_master(terminal.descriptor(), &mut buffer),
            };
            if read != Err(Errno::INTR) {
                break read;
            }
        };
        match read {
            Ok(count) => buffer.truncate(count),
            Err(Errno::AGAIN) => buffer.clear(),
            Err(errno) => return Err(errno.into()),
        }
        Ok(buffer.freeze())
    }

    pub(super) fn terminal(terminal: Arc<Terminal>) -> ExecReader {
        ExecReader(Source::Terminal(terminal))
    }
}

impl AsyncRead for ExecReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Source::Pipe(pipe) => Pin::new(pipe).poll_read(ctx, buffer),
            Source::Terminal(terminal) => terminal.poll_read(ctx, buffer),
        }
    }
}

/// Writes to a program's stdin; shutting it down or dropping it closes a pipe, and leaves a terminal as it is.
#[derive(Debug)]
pub struct ExecWriter(Sink);

#[derive(Debug)]
enum Sink {
    Pipe(pipe::Sender),
    Terminal(Arc<Terminal>),
    Closed,
}

impl ExecWriter {
    pub(super) fn pipe(descriptor: OwnedFd) -> io::Result<ExecWriter> {
        Ok(ExecWriter(Sink::Pipe(pipe::Sender::from_owned_fd(descriptor)?)))
    }

    pub(super) fn terminal(terminal: Arc<Terminal>) -> ExecWriter {
        ExecWriter(Sink::Terminal(terminal))
    }
}

impl AsyncWrite for ExecWriter {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Sink::Pipe(pipe) => Pin::new(pipe).poll_write(ctx, bytes),
            Sink::Terminal(terminal) => terminal.poll_write(ctx, bytes),
            Sink::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = Sink::Closed;
        Poll::Ready(Ok(()))
    }
}
