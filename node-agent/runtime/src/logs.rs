//! Reads containers' log files (CRI text format) with tail, since, limit and follow, across rotation.

mod files;
mod format;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::files::Part;
use self::format::Formatter;

/// How soon a follower sees a new line.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);

/// Read at once.
const READ_BYTES: usize = 64 << 10;

/// The log file of one attempt of a container; older parts lie beside it as `.1` and `.2`.
pub fn path(log_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    log_dir.join(container).join(format!("{attempt}.log"))
}

/// An older part of the log at `path`; a higher number is older.
pub(crate) fn part(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Which part of a log is wanted, as the `pods/log` subresource has it.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Wait for more until the container has ended.
    pub follow: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines written at or after.
    pub since: Option<Timestamp>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
    /// Put the time before each line.
    pub timestamps: bool,
}

/// A log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogError {
    /// There is no log, or the disk fails.
    #[error("cannot read the log {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A log being read.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    follow: bool,
    finished: CancellationToken,
    formatter: Formatter,
    current: Part,
    /// Parts that are newer than the current one, oldest first.
    newer: VecDeque<Part>,
    /// Whether nothing can be added any more to the current part.
    is_complete: bool,
}

impl LogReader {
    /// Opens the log at `path`. With `follow`, reading ends after `finished` is cancelled and all is read.
    pub async fn open(
        path: PathBuf,
        options: ReadOptions,
        finished: CancellationToken,
    ) -> Result<LogReader, ReadLogError> {
        let (from, tail) = (path.clone(), options.tail_lines);
        let mut newer = match blocking(move || files::open(&from, tail)).await {
            Ok(parts) => parts,
            Err(source) => return Err(ReadLogError::Read { path, source }),
        };
        let Some(current) = newer.pop_front() else {
            return Err(ReadLogError::Read {
                path,
                source: io::ErrorKind::NotFound.into(),
            });
        };
        let formatter = Formatter::new(options.since, options.timestamps, options.limit_bytes);
        let follow = options.follow;
        Ok(LogReader {
            path,
            follow,
            finished,
            formatter,
            current,
            newer,
            is_complete: false,
        })
    }

    /// The next lines, or `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadLogError> {
        loop {
            if self.formatter.is_full() {
                return Ok(None);
            }
            let (file, position) = (Arc::clone(&self.current.file), self.current.position);
            let bytes = self.result(blocking(move || read_at(&file, position)).await)?;
            if !bytes.is_empty() {
                // Nothing is awaited between reading and noting what was read.
                self.current.position += bytes.len() as u64;
                let text = self.formatter.format(&bytes);
                if !text.is_empty() {
                    return Ok(Some(text.into()));
                }
            } else if !self.go_on().await? {
                return Ok(None);
            }
        }
    }

    fn result<T>(&self, result: io::Result<T>) -> Result<T, ReadLogError> {
        result.map_err(|source| ReadLogError::Read {
            path: self.path.clone(),
            source,
        })
    }

    /// At the end of the current part: moves to the next, or waits for more. `false` at the end of all.
    async fn go_on(&mut self) -> Result<bool, ReadLogError> {
        if let Some(next) = self.newer.pop_front() {
            self.current = next;
            self.is_complete = false;
            return Ok(true);
        }
        if !self.follow || self.is_complete {
            return Ok(false);
        }
        let ended = self.finished.is_cancelled();
        let (path, id) = (self.path.clone(), self.current.id);
        let newer = self.result(blocking(move || files::newer_than(&path, id)).await)?;
        if newer.is_empty() && !ended {
            tokio::select! {
                // Dropping either loses nothing: both only end the pause.
                () = self.finished.cancelled() => {}
                () = tokio::time::sleep(FOLLOW_PAUSE) => {}
            }
            return Ok(true);
        }
        // What the container wrote before it ended, or before this part was put aside, is still to be read:
        // once more to the end of this part, and then on.
        let (file, position) = (Arc::clone(&self.current.file), self.current.position);
        let more = self.result(blocking(move || Ok(file.metadata()?.len() > position)).await)?;
        if more {
            return Ok(true);
        }
        self.is_complete = newer.is_empty();
        self.newer = newer;
        Ok(true)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn read_at(file: &File, position: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; READ_BYTES];
    let count = file.read_at(&mut bytes, position)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// One line per second, from the epoch on; parts as `.2`, `.1` and the current file.
    fn write_log(folder: &Path, parts: [&[&str]; 3]) -> PathBuf {
        let path = path(folder, "c", 0);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut second = 0;
        for (lines, file) in parts
            .into_iter()
            .zip([part(&path, 2), part(&path, 1), path.clone()])
        {
            let mut text = String::new();
            for line in lines {
                text += &format!("1970-01-01T00:00:{second:02}.000000000Z stdout {line}\n");
                second += 1;
            }
            if !text.is_empty() {
                fs::write(file, text).unwrap();
            }
        }
        path
    }

    async fn read(path: &Path, options: ReadOptions) -> String {
        let mut reader = LogReader::open(path.to_owned(), options, CancellationToken::new())
            .await
            .unwrap();
        let mut text = Vec::new();
        while let Some(bytes) = reader.next().await.unwrap() {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn rotated_parts_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_log(folder.path(), [&["F a", "P b"], &["F c"], &["F d", "F e"]]);
        assert_eq!(read(&path, ReadOptions::default()).await, "a\nbc\nd\ne\n");
        let tail = |count| ReadOptions {
            tail_lines: Some(count),
            ..ReadOptions::default()
        };
        assert_eq!(read(&path, tail(0)).await, "");
        assert_eq!(read(&path, tail(1)).await, "e\n");
        assert_eq!(read(&path, tail(2)).await, "d\ne\n");
        assert_eq!(
            read(&path, tail(3)).await,
            "c\nd\ne\n",
            "its beginning was put aside"
        );
        assert_eq!(read(&path, tail(9)).await, "a\nbc\nd\ne\n");
        let since = ReadOptions {
            since: Timestamp::from_second(3).ok(),
            ..ReadOptions::default()
        };
        assert_eq!(read(&path, since).await, "d\ne\n");
        let limit = ReadOptions {
            limit_bytes: Some(4),
            timestamps: true,
            ..ReadOptions::default()
        };
        assert_eq!(read(&path, limit).await, "1970");
    }

    #[tokio::test]
    async fn long_tails_are_found_from_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "c", 0);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let line = |number: usize| format!("1970-01-01T00:00:00.000000000Z stdout F {number:040}\n");
        fs::write(&path, (0..10_000).map(line).collect::<String>()).unwrap();
        let tail = |count| ReadOptions {
            tail_lines: Some(count),
            ..ReadOptions::default()
        };
        for count in [1, 999, 5_000, 10_000] {
            let text = read(&path, tail(count as u64)).await;
            assert_eq!(text.lines().count(), count);
            assert_eq!(
                text.lines().next().unwrap().parse::<usize>().unwrap(),
                10_000 - count
            );
        }
    }

    #[tokio::test]
    async fn following_crosses_rotations_and_ends_with_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_log(folder.path(), [&[], &[], &["F a"]]);
        let finished = CancellationToken::new();
        let options = ReadOptions {
            follow: true,
            ..ReadOptions::default()
        };
        let mut reader = LogReader::open(path.clone(), options, finished.clone())
            .await
            .unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), "a\n");
        // A reader that is dropped while waiting loses nothing.
        tokio::time::timeout(Duration::from_millis(1), reader.next())
            .await
            .unwrap_err();
        append(&path, "F b");
        fs::rename(part(&path, 1), part(&path, 2)).ok();
        fs::rename(&path, part(&path, 1)).unwrap();
        append(&path, "F c");
        let mut text = Vec::new();
        while text.len() < 4 {
            text.extend(reader.next().await.unwrap().unwrap());
        }
        append(&path, "F d");
        finished.cancel();
        while let Some(bytes) = reader.next().await.unwrap() {
            text.extend(bytes);
        }
        assert_eq!(String::from_utf8(text).unwrap(), "b\nc\nd\n");
    }

    #[tokio::test]
    async fn a_log_that_does_not_exist_is_an_error() {
        let missing = PathBuf::from("/no/log");
        LogReader::open(missing, ReadOptions::default(), CancellationToken::new())
            .await
            .unwrap_err();
    }

    fn append(path: &Path, line: &str) {
        use std::io::Write;
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "1970-01-01T00:00:59.000000000Z stdout {line}").unwrap();
    }
}
