//! What a disk with a volatile write cache holds, and what is left of that when its power goes.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _};

/// What a disk writes whole or not at all. Those of today have physical sectors of this size, and ext4 relies on it: it
/// writes its superblock, two sectors of 512 bytes, in place when it is mounted.
pub const SECTOR_BYTES: usize = 4096;

type Sector = [u8; SECTOR_BYTES];

/// A disk: what is written stays in the cache until it is flushed, and only what was flushed is in the file.
///
/// The file stands for the platter. It is on a machine whose power is not cut, so it need not be synced itself.
pub(super) struct CachedDisk {
    platter: File,
    bytes: u64,
    /// Writes since the last flush, oldest first.
    unflushed: Vec<(u64, Sector)>,
    /// Where in `unflushed` the newest content of a sector is.
    newest: HashMap<u64, usize>,
}

/// What became of the sectors that were in the cache at a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Writes of sectors that reached the platter all the same.
    pub kept: usize,
    /// Writes of sectors that are gone.
    pub lost: usize,
}

impl CachedDisk {
    pub(super) fn new(platter: File) -> io::Result<Self> {
        let bytes = platter.metadata()?.len();
        Ok(Self {
            platter,
            bytes,
            unflushed: Vec::new(),
            newest: HashMap::new(),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn read(&self, offset: u64, content: &mut [u8]) -> io::Result<()> {
        let first = self.first_sector(offset, content.len())?;
        self.platter.read_exact_at(content, offset)?;
        for (number, sector) in (first..).zip(content.chunks_exact_mut(SECTOR_BYTES)) {
            if let Some(at) = self.newest.get(&number) {
                sector.copy_from_slice(&self.unflushed[*at].1);
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        let first = self.first_sector(offset, content.len())?;
        let (sectors, _) = content.as_chunks::<SECTOR_BYTES>();
        for (number, sector) in (first..).zip(sectors) {
            self.newest.insert(number, self.unflushed.len());
            self.unflushed.push((number, *sector));
        }
        Ok(())
    }

    /// All that was written before is on the platter.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.cut_power(|| true).map(|_| ())
    }

    /// Empties the cache; `reaches_platter` says for each write of a sector, oldest first, whether it was done in time.
    ///
    /// Any subset is possible on a real disk, which writes in an order of its own, and a block of several sectors may be
    /// torn.
    pub(super) fn cut_power(&mut self, mut reaches_platter: impl FnMut() -> bool) -> io::Result<Loss> {
        self.newest.clear();
        let mut loss = Loss::default();
        for (number, sector) in std::mem::take(&mut self.unflushed) {
            if reaches_platter() {
                self.platter.write_all_at(&sector, number * SECTOR_BYTES as u64)?;
                loss.kept += 1;
            } else {
                loss.lost += 1;
            }
        }
        Ok(loss)
    }

    fn first_sector(&self, offset: u64, length: usize) -> io::Result<u64> {
        let size = SECTOR_BYTES as u64;
        let length = length as u64;
        let end = offset.checked_add(length).filter(|end| *end <= self.bytes);
        if end.is_none() || !offset.is_multiple_of(size) || !length.is_multiple_of(size) {
            let text = format!("{length} bytes at {offset} are not whole sectors of this disk");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(offset / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: usize = 4;

    fn disk() -> CachedDisk {
        let platter = tempfile::tempfile().expect("a file can be made");
        platter
            .set_len((SECTORS * SECTOR_BYTES) as u64)
            .expect("it can be given a size");
        CachedDisk::new(platter).expect("it can be looked at")
    }

    /// Writes the letters to as many sectors, from the first on.
    fn write(disk: &mut CachedDisk, letters: &str) {
        let content: Vec<u8> = letters
            .bytes()
            .flat_map(|letter| [letter; SECTOR_BYTES])
            .collect();
        disk.write(0, &content).expect("a file can be written");
    }

    /// One letter for each sector; a dot for what was never written, a star for a mixture.
    fn look(disk: &CachedDisk) -> String {
        let mut content = vec![0; SECTORS * SECTOR_BYTES];
        disk.read(0, &mut content).expect("a file can be read");
        let letter = |sector: &[u8]| match sector[0] {
            first if sector.iter().any(|byte| *byte != first) => '*',
            0 => '.',
            first => char::from(first),
        };
        content.chunks(SECTOR_BYTES).map(letter).collect()
    }

    #[test]
    fn what_was_written_is_read_and_what_was_not_flushed_is_lost() {
        let mut disk = disk();
        write(&mut disk, "ab");
        disk.flush().expect("a file can be written");
        write(&mut disk, "xyz");
        assert_eq!(look(&disk), "xyz.");
        let loss = disk.cut_power(|| false).expect("a file can be written");
        assert_eq!((look(&disk).as_str(), loss), ("ab..", Loss { kept: 0, lost: 3 }));
    }

    #[test]
    fn any_part_of_the_cache_may_have_been_written() {
        let mut disk = disk();
        write(&mut disk, "abcd");
        disk.flush().expect("a file can be written");
        write(&mut disk, "wxyz");
        write(&mut disk, "WXYZ");
        let mut answers = "nyyn nnyn".chars().filter(|answer| *answer != ' ');
        let loss = disk.cut_power(|| answers.next() == Some('y'));
        assert_eq!(look(&disk), "axYd");
        assert_eq!(loss.expect("a file can be written"), Loss { kept: 3, lost: 5 });
    }

    #[test]
    fn parts_of_sectors_and_what_lies_outside_are_refused() {
        let mut disk = disk();
        for (offset, length) in [(1, SECTOR_BYTES), (0, 1), (SECTOR_BYTES, SECTORS * SECTOR_BYTES)] {
            let refused = disk.write(offset as u64, &vec![1; length]);
            assert!(refused.is_err(), "{length} bytes at {offset}");
        }
        assert_eq!(look(&disk), "....");
    }
}
