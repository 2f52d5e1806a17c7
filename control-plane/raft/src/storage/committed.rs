//! How far the log was committed, in a small file beside the log.
//!
//! Written without a sync at each commit, so after a power cut it may be older than the truth, never newer:
//! what it names was durable before. It lets a restart apply at once what it knows to be committed, and it
//! tells when a damaged log has lost its tail.

use std::io;
use std::path::Path;

use super::record;
use crate::consensus::{self, LogId};
use crate::platform::{DiskFile, Files};

pub(super) struct CommittedFile {
    file: Box<dyn DiskFile>,
}

/// Room for the record; always the same so that a shorter one leaves nothing of a longer one behind.
const FILE_BYTES: usize = 64;

impl CommittedFile {
    pub(super) fn open(files: &dyn Files, path: &Path) -> io::Result<(CommittedFile, Option<LogId>)> {
        let file = files.open_or_create(path)?;
        let mut content = [0; FILE_BYTES];
        let read = file.read_at(&mut content, 0)?;
        let length = content[0] as usize;
        // A torn or empty file only means that nothing is known.
        let committed = content[1..read.max(1)]
            .get(..length)
            .and_then(record::unseal)
            .and_then(|payload| consensus::decode(payload).ok());
        Ok((CommittedFile { file }, committed))
    }

    pub(super) fn write(&self, committed: LogId) -> io::Result<()> {
        let sealed = record::seal(&consensus::encode(&committed));
        let mut content = [0; FILE_BYTES];
        content[0] = sealed.len() as u8;
        content[1..=sealed.len()].copy_from_slice(&sealed);
        self.file.write_all_at(&content, 0)
    }
}
