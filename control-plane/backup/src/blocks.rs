//! Blocks: a kind, a length, the payload, a checksum over all of that and over the block's number.
//!
//! The number makes a lost, repeated or swapped block as visible as a flipped bit.

use std::fmt;
use std::io::{self, Read, Write};

use crc32fast::Hasher;
use sha2::{Digest, Sha256};

use crate::{MAGIC, ReadBackupError};

/// Payload of a block of pieces. Small enough to say where the damage is, large enough to cost nothing.
const PIECE_BYTES: usize = 64 << 10;
/// No block is larger; a length beyond it is damage, and must not be allocated.
const BLOCK_BYTES_MAX: u32 = 16 << 20;
const START_BYTES: usize = 5;
const SUM_BYTES: usize = 4;
/// After the last block: a kind that no block has.
const END: u8 = 0;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Header = 1,
    Keys = 2,
    Image = 3,
    Summary = 4,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Header => "header",
            Kind::Keys => "part with the keys",
            Kind::Image => "part with the objects",
            Kind::Summary => "summary",
        })
    }
}

fn checksum(number: u64, start: &[u8], payload: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(start);
    sum.update(payload);
    sum.finalize().to_le_bytes()
}

/// Writes blocks.
pub(crate) struct BlockWriter<W> {
    out: W,
    sha256: Sha256,
    number: u64,
}

impl<W: Write> BlockWriter<W> {
    pub(crate) fn new(out: W) -> io::Result<BlockWriter<W>> {
        let mut writer = BlockWriter {
            out,
            sha256: Sha256::new(),
            number: 0,
        };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    /// Writes one block.
    pub(crate) fn block(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut start = [kind as u8; START_BYTES];
        start[1..].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(self.number, &start, payload);
        self.number += 1;
        self.put(&start)?;
        self.put(payload)?;
        self.put(&sum)
    }

    /// A stream that is written as blocks of one kind.
    pub(crate) fn pieces(&mut self, kind: Kind) -> PieceWriter<'_, W> {
        PieceWriter {
            blocks: self,
            kind,
            piece: Vec::with_capacity(PIECE_BYTES),
        }
    }

    /// Ends the file.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.put(&[END])?;
        let digest = self.sha256.clone().finalize();
        self.out.write_all(&digest)?;
        self.out.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha256.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Cuts a stream into blocks.
pub(crate) struct PieceWriter<'a, W> {
    blocks: &'a mut BlockWriter<W>,
    kind: Kind,
    piece: Vec<u8>,
}

impl<W: Write> PieceWriter<'_, W> {
    /// Writes what is left.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.write_piece()
    }

    fn write_piece(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.blocks.block(self.kind, &self.piece)?;
            self.piece.clear();
        }
        Ok(())
    }
}

impl<W: Write> Write for PieceWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let taken = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.write_piece()?;
        }
        Ok(taken)
    }

    /// A piece is written when it is full or the last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads and checks blocks.
pub(crate) struct BlockReader<R> {
    input: R,
    sha256: Sha256,
    number: u64,
    position: u64,
    /// A block that was read too early, and where it began.
    ahead: Option<(u8, Vec<u8>, u64)>,
}

impl<R: Read> BlockReader<R> {
    pub(crate) fn new(input: R) -> Result<BlockReader<R>, ReadBackupError> {
        let mut reader = BlockReader {
            input,
            sha256: Sha256::new(),
            number: 0,
            position: 0,
            ahead: None,
        };
        let mut magic = [0; MAGIC.len()];
        reader.fill(&mut magic).map_err(|error| match error {
            ReadBackupError::CutOff { .. } => ReadBackupError::Foreign,
            error => error,
        })?;
        let (name, version) = MAGIC.split_at(MAGIC.len() - 2);
        if magic[..name.len()] != *name {
            return Err(ReadBackupError::Foreign);
        }
        if magic[name.len()..] != *version {
            let digits = std::str::from_utf8(&magic[name.len()..]).unwrap_or_default();
            return Err(match digits.parse() {
                Ok(found) => ReadBackupError::Newer {
                    found,
                    known: crate::FORMAT,
                },
                Err(_) => ReadBackupError::Foreign,
            });
        }
        Ok(reader)
    }

    /// Where the next block begins.
    pub(crate) fn position(&self) -> u64 {
        self.ahead.as_ref().map_or(self.position, |(_, _, at)| *at)
    }

    /// The payload of the next block, which has to be of a kind.
    pub(crate) fn expect(&mut self, kind: Kind) -> Result<Vec<u8>, ReadBackupError> {
        let (found, payload, at) = self.next()?;
        match found == kind as u8 {
            true => Ok(payload),
            false => Err(damaged(at, format!("the {kind} is missing"))),
        }
    }

    /// The payloads of the blocks of one kind that follow, as a stream.
    pub(crate) fn pieces(&mut self, kind: Kind) -> PieceReader<'_, R> {
        PieceReader {
            blocks: self,
            kind,
            piece: Vec::new(),
            taken: 0,
        }
    }

    /// Checks that this is the end; returns the digest and the length of the file.
    pub(crate) fn finish(mut self) -> Result<(String, u64), ReadBackupError> {
        let (end, _, at) = self.next()?;
        if end != END {
            return Err(damaged(at, "a block is too many".to_owned()));
        }
        let computed = self.sha256.clone().finalize();
        let at = self.position;
        let mut digest = [0; 32];
        self.fill(&mut digest)?;
        if digest[..] != computed[..] {
            return Err(damaged(at, "the SHA-256 of the whole is another one".to_owned()));
        }
        let mut more = [0; 1];
        match self.input.read(&mut more).map_err(ReadBackupError::Read)? {
            0 => {}
            _ => return Err(damaged(self.position, "something follows its end".to_owned())),
        }
        let digits = digest.iter().map(|byte| format!("{byte:02x}"));
        Ok((digits.collect(), self.position))
    }

    /// Kind, payload and place of the next block, whose checksum is right.
    fn next(&mut self) -> Result<(u8, Vec<u8>, u64), ReadBackupError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(ahead);
        }
        let at = self.position;
        let mut start = [0; START_BYTES];
        self.fill(&mut start[..1])?;
        if start[0] == END {
            return Ok((END, Vec::new(), at));
        }
        self.fill(&mut start[1..])?;
        let length = u32::from_le_bytes([start[1], start[2], start[3], start[4]]);
        if length > BLOCK_BYTES_MAX {
            return Err(damaged(
                at,
                format!("block {} has an impossible length", self.number),
            ));
        }
        let mut payload = vec![0; length as usize];
        self.fill(&mut payload)?;
        let mut sum = [0; SUM_BYTES];
        self.fill(&mut sum)?;
        if sum != checksum(self.number, &start, &payload) {
            return Err(damaged(
                at,
                format!("the checksum of block {} ({length} bytes) is wrong", self.number),
            ));
        }
        self.number += 1;
        Ok((start[0], payload, at))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ReadBackupError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => return Err(ReadBackupError::CutOff { at: self.position }),
                Ok(read) => {
                    filled += read;
                    self.position += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadBackupError::Read(error)),
            }
        }
        self.sha256.update(&bytes);
        Ok(())
    }
}

fn damaged(at: u64, what: String) -> ReadBackupError {
    ReadBackupError::Damaged { at, what }
}

/// Joins blocks to a stream, which ends before the first block of another kind.
pub(crate) struct PieceReader<'a, R> {
    blocks: &'a mut BlockReader<R>,
    kind: Kind,
    piece: Vec<u8>,
    taken: usize,
}

impl<R: Read> Read for PieceReader<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() {
            let (found, payload, at) = self.blocks.next().map_err(io::Error::other)?;
            if found != self.kind as u8 {
                self.blocks.ahead = Some((found, payload, at));
                return Ok(0);
            }
            (self.piece, self.taken) = (payload, 0);
        }
        let count = bytes.len().min(self.piece.len() - self.taken);
        bytes[..count].copy_from_slice(&self.piece[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
