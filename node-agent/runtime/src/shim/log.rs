//! Takes a container's output from its pipes to its log file, in the CRI text format:
//! `<time> <stream> <F or P> <line>`, where `P` marks a part of a line that goes on. Attached clients get a copy.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use rustix::io::Errno;

use super::tee::Tee;
use crate::terminal;

/// A longer line is written in parts.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Read at once; a multiple of what a pipe is filled with at once.
const READ_BYTES: usize = 16 << 10;

/// Size at which a file is put aside.
const FILE_BYTES_MAX: u64 = 10 << 20;

/// Files kept per attempt, the current one included.
const FILES_MAX: u32 = 3;

/// The streams of one container and its file.
pub(super) struct ContainerLog {
    file: RotatingFile,
    streams: Vec<Stream>,
}

struct Stream {
    name: &'static str,
    /// `None` once all writers have closed it.
    pipe: Option<OwnedFd>,
    /// The beginning of a line whose end has not come yet.
    pending: Vec<u8>,
    /// Attached clients.
    tees: Vec<Tee>,
}

impl ContainerLog {
    /// Opens the log at `path` for what comes out of non-blocking pipes: stdout or a terminal, then stderr.
    pub(super) fn open(path: &Path, pipes: Vec<OwnedFd>) -> io::Result<ContainerLog> {
        let stream = |(name, pipe)| Stream {
            name,
            pipe: Some(pipe),
            pending: Vec::new(),
            tees: Vec::new(),
        };
        Ok(ContainerLog {
            file: RotatingFile::open(path, FILE_BYTES_MAX)?,
            streams: ["stdout", "stderr"].into_iter().zip(pipes).map(stream).collect(),
        })
    }

    /// The pipes to read from, with their number; none whose attached clients are behind.
    pub(super) fn pipes(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let streams = self.streams.iter().enumerate();
        streams.filter_map(|(number, stream)| match stream.tees.iter().any(Tee::is_behind) {
            true => None,
            false => Some((number, stream.pipe.as_ref()?.as_fd())),
        })
    }

    /// The attached clients that are behind, with their stream's number.
    pub(super) fn behind(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let streams = self.streams.iter().enumerate();
        streams.flat_map(|(number, stream)| {
            let behind = stream.tees.iter().filter(|tee| tee.is_behind());
            behind.map(move |tee| (number, tee.descriptor()))
        })
    }

    /// Gives a client a copy of a stream from now on; none of a stream that the container does not have.
    pub(super) fn attach(&mut self, number: usize, client: u64) -> io::Result<Option<OwnedFd>> {
        let Some(stream) = self.streams.get_mut(number) else {
            return Ok(None);
        };
        let (tee, reader) = Tee::open(client)?;
        stream.tees.push(tee);
        Ok(Some(reader))
    }

    /// Forgets a client.
    pub(super) fn detach(&mut self, client: u64) {
        self.retain_tees(|tee| !tee.belongs_to(client));
    }

    /// Writes to the clients that are behind, and cuts off those that have not taken anything for too long.
    pub(super) fn catch_up(&mut self) {
        let now = Instant::now();
        for stream in &mut self.streams {
            let ended = stream.pipe.is_none();
            stream
                .tees
                .retain_mut(|tee| tee.catch_up(now) && (tee.is_behind() || !ended));
        }
    }

    fn retain_tees(&mut self, wanted: impl Fn(&Tee) -> bool) {
        for stream in &mut self.streams {
            stream.tees.retain(&wanted);
        }
    }

    /// Moves what is in a pipe to the file, once; returns whether there may be more.
    pub(super) fn pump(&mut self, number: usize) -> bool {
        let stream = &mut self.streams[number];
        let Some(pipe) = &stream.pipe else { return false };
        let mut buffer = [0; READ_BYTES];
        let more = match terminal::read_master(pipe, &mut buffer) {
            Ok(0) => {
                stream.pipe = None;
                false
            }
            Ok(count) => {
                stream.tees.retain_mut(|tee| tee.offer(&buffer[..count]));
                let lines = stream.take(&buffer[..count], Timestamp::now());
                self.file.append(&lines);
                return true;
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            Err(_) => {
                stream.pipe = None;
                false
            }
        };
        if stream.pipe.is_none() {
            self.flush(number);
        }
        more
    }

    /// Takes all that is left when no process of the container lives any more.
    pub(super) fn finish(&mut self) {
        for number in 0..self.streams.len() {
            while self.pump(number) {}
            self.streams[number].pipe = None;
            self.flush(number);
        }
        // Clients that are behind by no more than a pipe holds get the rest.
        self.retain_tees(Tee::is_behind);
    }

    fn flush(&mut self, number: usize) {
        let lines = self.streams[number].take_rest(Timestamp::now());
        self.file.append(&lines);
    }
}

impl Stream {
    /// The log lines for `bytes`, after what was pending; keeps the beginning of an unfinished line.
    fn take(&mut self, bytes: &[u8], now: Timestamp) -> Vec<u8> {
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.pending.extend_from_slice(text);
            while self.pending.len() > LINE_BYTES_MAX {
                let rest = self.pending.split_off(LINE_BYTES_MAX);
                self.push_line(&mut lines, b'P', now);
                self.pending = rest;
            }
            if ends {
                self.push_line(&mut lines, b'F', now);
                self.pending.clear();
            }
        }
        lines
    }

    fn take_rest(&mut self, now: Timestamp) -> Vec<u8> {
        let mut lines = Vec::new();
        if !self.pending.is_empty() {
            self.push_line(&mut lines, b'F', now);
        }
        self.pending = Vec::new();
        lines
    }

    fn push_line(&self, lines: &mut Vec<u8>, tag: u8, now: Timestamp) {
        // Writing to a vector cannot fail.
        write!(lines, "{now:.9} {} {} ", self.name, char::from(tag)).ok();
        lines.extend_from_slice(&self.pending);
        lines.push(b'\n');
    }
}

/// Logs may hold secrets, so not everybody may read them; kubelet gives the same rights.
fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

/// A file that is put aside as `.1`, then `.2`, when it has grown enough.
struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    size_max: u64,
}

impl RotatingFile {
    fn open(path: &Path, size_max: u64) -> io::Result<RotatingFile> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = open_to_append(path)?;
        let size = file.metadata()?.len();
        Ok(RotatingFile {
            path: path.to_owned(),
            file,
            size,
            size_max,
        })
    }

    /// Appends whole lines. What the disk does not take is lost: a container must never wait for its log.
    fn append(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self.size >= self.size_max {
            self.rotate().ok();
        }
        if self.file.write_all(lines).is_ok() {
            self.size += lines.len() as u64;
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..FILES_MAX - 1).rev() {
            // The older parts do not exist at first.
            fs::rename(part(&self.path, number), part(&self.path, number + 1)).ok();
        }
        fs::rename(&self.path, part(&self.path, 1))?;
        self.file = open_to_append(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn part(path: &Path, number: u32) -> PathBuf {
    crate::logs::part(path, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> String {
        let mut stream = Stream {
            name: "stdout",
            pipe: None,
            pending: Vec::new(),
            tees: Vec::new(),
        };
        let now = Timestamp::UNIX_EPOCH;
        let mut text: Vec<u8> = pieces.iter().flat_map(|piece| stream.take(piece, now)).collect();
        text.extend(stream.take_rest(now));
        String::from_utf8(text)
            .unwrap()
            .replace("1970-01-01T00:00:00.000000000Z stdout ", "")
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(lines(&[b"a\nb", b"c\n", b"\n", b"end"]), "F a\nF bc\nF \nF end\n");
    }

    #[test]
    fn long_lines_are_cut_and_tagged() {
        let long = vec![b'x'; LINE_BYTES_MAX + 3];
        let full = "x".repeat(LINE_BYTES_MAX);
        assert_eq!(lines(&[&long, b"\n"]), format!("P {full}\nF xxx\n"));
        assert_eq!(lines(&[&long[..LINE_BYTES_MAX], b"\n"]), format!("F {full}\n"));
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c/0.log");
        let mut file = RotatingFile::open(&path, 4).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            file.append(line.as_bytes());
        }
        let read = |number: u32| fs::read_to_string(part(&path, number)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
        assert_eq!((read(1), read(2)), ("three\n".into(), "two\n".into()));
        assert!(!part(&path, 3).exists());
    }
}
