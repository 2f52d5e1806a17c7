//! This process's own terminal: raw while a remote one is shown in it, its size, its input.

use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncRead;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

/// Pieces of input that wait to be sent.
const PIECES_MAX: usize = 4;
const PIECE_BYTES: usize = 32 << 10;

/// The size of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    columns: u16,
    rows: u16,
}

impl Size {
    /// As the resize channel takes it.
    pub(crate) fn to_json(self) -> String {
        serde_json::json!({"Width": self.columns, "Height": self.rows}).to_string()
    }

    fn now() -> Option<Self> {
        let size = tcgetwinsize(std::io::stdout())
            .or_else(|_| tcgetwinsize(std::io::stdin()))
            .ok()?;
        Some(Self {
            columns: size.ws_col,
            rows: size.ws_row,
        })
    }
}

/// Whether standard input is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// The terminal in raw mode: keys go to the remote process as they are, also those that would end this one.
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Puts the terminal of standard input into raw mode, until the value is dropped.
    pub(crate) fn enter() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The size of the terminal now and whenever it changes, while the future runs that is returned with it.
pub(crate) fn window_sizes() -> std::io::Result<(watch::Receiver<Size>, impl Future<Output = ()>)> {
    let mut changes = signal(SignalKind::window_change())?;
    let (sizes, receiver) = watch::channel(Size::now().unwrap_or_default());
    let follow = async move {
        while changes.recv().await.is_some() {
            if let Some(size) = Size::now() {
                sizes.send_replace(size);
            }
        }
    };
    Ok((receiver, follow))
}

/// Standard output or error. It is written by other threads, so that input goes on while nobody takes the output.
pub(crate) fn output(stream: &impl AsFd) -> std::io::Result<tokio::fs::File> {
    let file = std::fs::File::from(stream.as_fd().try_clone_to_owned()?);
    Ok(tokio::fs::File::from_std(file))
}

/// Standard input. It is read by a thread of its own, for which the end of the process does not wait.
pub(crate) fn standard_input() -> impl AsyncRead + Unpin {
    let (pieces, receiver) = mpsc::channel::<std::io::Result<bytes::Bytes>>(PIECES_MAX);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let piece = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(bytes::Bytes::copy_from_slice(&buffer[..count])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_end = piece.is_err();
            if pieces.blocking_send(piece).is_err() || is_end {
                return;
            }
        }
    });
    StreamReader::new(ReceiverStream::new(receiver))
}
