//! A snapshot as a stream of bytes, for Raft's snapshots.
//!
//! *Guarantees*: [`read_image`] returns only what [`write_image`] wrote, whole: the stream ends with a count
//! and a checksum of everything before.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;

use crate::key::{Key, ResourceName, Revision};
use crate::object::Stored;
use crate::snapshot::{Objects, Snapshot};

const MAGIC: &[u8; 8] = b"FLTIMG01";
/// Larger than any object that is accepted; a length beyond it is a corrupted stream.
const FIELD_BYTES_MAX: u64 = 64 << 20;
const MARK_OBJECT: u8 = 1;
const MARK_END: u8 = 0;

/// Why a stream is not a whole image.
#[derive(Debug, thiserror::Error)]
pub enum ReadImageError {
    /// The stream broke off or could not be read.
    #[error("the snapshot image cannot be read")]
    Read(#[from] io::Error),
    /// The bytes are not what was written.
    #[error("the snapshot image is corrupted: {0}")]
    Corrupted(&'static str),
}

/// Writes all objects of a snapshot, and the newest term that was applied before it.
pub fn write_image(snapshot: &Snapshot, term: u64, out: impl Write) -> io::Result<()> {
    let mut out = Summing {
        inner: out,
        sum: Hasher::new(),
    };
    out.write_all(MAGIC)?;
    write_number(&mut out, snapshot.revision().0)?;
    write_number(&mut out, term)?;
    for object in snapshot.iter() {
        out.write_all(&[MARK_OBJECT])?;
        write_object(&mut out, object)?;
    }
    out.write_all(&[MARK_END])?;
    write_number(&mut out, snapshot.len() as u64)?;
    let sum = out.sum.clone().finalize();
    out.inner.write_all(&sum.to_le_bytes())?;
    out.inner.flush()
}

/// Reads what [`write_image`] wrote: the snapshot and the term.
pub fn read_image(input: impl Read) -> Result<(Snapshot, u64), ReadImageError> {
    let mut input = Summing {
        inner: input,
        sum: Hasher::new(),
    };
    if read_array::<8>(&mut input)? != *MAGIC {
        return Err(ReadImageError::Corrupted("it does not start as an image does"));
    }
    let revision = Revision(read_number(&mut input)?);
    let term = read_number(&mut input)?;
    let mut objects = Objects::default();
    let mut bytes = 0;
    let mut last: Option<Key> = None;
    while read_array::<1>(&mut input)? == [MARK_OBJECT] {
        let object = read_object(&mut input, last.as_ref())?;
        last = Some(object.key.clone());
        bytes += object.cost_bytes();
        objects.insert(Arc::new(object));
    }
    if read_number(&mut input)? != objects.len() as u64 {
        return Err(ReadImageError::Corrupted("objects are missing"));
    }
    let sum = input.sum.clone().finalize();
    if read_array::<4>(&mut input)? != sum.to_le_bytes() {
        return Err(ReadImageError::Corrupted("the checksum is wrong"));
    }
    let snapshot = Snapshot {
        objects,
        revision,
        bytes,
    };
    Ok((snapshot, term))
}

fn write_object(out: &mut impl Write, object: &Stored) -> io::Result<()> {
    write_bytes(out, object.key.resource.group.as_bytes())?;
    write_bytes(out, object.key.resource.resource.as_bytes())?;
    write_bytes(out, object.key.namespace.as_bytes())?;
    write_bytes(out, object.key.name.as_bytes())?;
    write_number(out, object.created.0)?;
    write_number(out, object.modified.0)?;
    write_number(out, object.revision_at() as u64)?;
    write_bytes(out, &object.json)
}

fn read_object(input: &mut impl Read, last: Option<&Key>) -> Result<Stored, ReadImageError> {
    // Neighbours mostly share group, resource and namespace: share their strings as well.
    let group = read_name(input, last.map(|key| &key.resource.group))?;
    let resource = read_name(input, last.map(|key| &key.resource.resource))?;
    let namespace = read_name(input, last.map(|key| &key.namespace))?;
    let name = read_name(input, None)?;
    let created = Revision(read_number(input)?);
    let modified = Revision(read_number(input)?);
    let revision_at = usize::try_from(read_number(input)?)
        .map_err(|_| ReadImageError::Corrupted("an offset is too large"))?;
    let json = Bytes::from(read_bytes(input)?);
    let key = Key {
        resource: ResourceName { group, resource },
        namespace,
        name,
    };
    Ok(Stored::from_parts(key, json, created, modified, revision_at))
}

fn write_number(out: &mut impl Write, number: u64) -> io::Result<()> {
    out.write_all(&number.to_le_bytes())
}

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write_number(out, bytes.len() as u64)?;
    out.write_all(bytes)
}

fn read_array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    input.read_exact(&mut array)?;
    Ok(array)
}

fn read_number(input: &mut impl Read) -> io::Result<u64> {
    read_array(input).map(u64::from_le_bytes)
}

fn read_bytes(input: &mut impl Read) -> Result<Vec<u8>, ReadImageError> {
    let length = read_number(input)?;
    if length > FIELD_BYTES_MAX {
        return Err(ReadImageError::Corrupted("a length is too large"));
    }
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Err(ReadImageError::Corrupted("it breaks off"));
    }
    Ok(bytes)
}

fn read_name(input: &mut impl Read, shared: Option<&Arc<str>>) -> Result<Arc<str>, ReadImageError> {
    let name = String::from_utf8(read_bytes(input)?)
        .map_err(|_| ReadImageError::Corrupted("a name is not UTF-8"))?;
    Ok(match shared {
        Some(shared) if **shared == *name => Arc::clone(shared),
        _ => Arc::from(name),
    })
}

/// Sums up what passes through.
struct Summing<I> {
    inner: I,
    sum: Hasher,
}

impl<I: Write> Write for Summing<I> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<I: Read> Read for Summing<I> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.sum.update(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Draft;

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot {
            revision: Revision(100),
            ..Snapshot::default()
        };
        for (number, namespace) in ["", "default", "default", "other"].into_iter().enumerate() {
            let key = Key::new(
                ResourceName::new("apps", "things"),
                namespace,
                format!("thing-{number}"),
            );
            let json = Bytes::from(format!(r#"{{"metadata":{{"n":{number}}}}}"#));
            let draft = Draft {
                json,
                revision_at: 13,
            };
            let object = Stored::from_draft(key.clone(), &draft, Revision(1), Revision(10 + number as u64));
            snapshot.objects.insert(Arc::new(object));
        }
        snapshot
    }

    fn image() -> Vec<u8> {
        let mut image = Vec::new();
        write_image(&snapshot(), 7, &mut image).unwrap();
        image
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (read, term) = read_image(&image()[..]).unwrap();
        assert_eq!((read.revision(), term), (Revision(100), 7));
        assert!(read.iter().eq(snapshot().iter()));
        let restamped =
            |snapshot: &Snapshot| snapshot.iter().next().map(|object| object.restamped(Revision(5)));
        assert_eq!(restamped(&read), restamped(&snapshot()));
        let namespaces: Vec<&Arc<str>> = read.iter().map(|object| &object.key.namespace).collect();
        assert!(
            Arc::ptr_eq(namespaces[1], namespaces[2]),
            "equal strings are shared"
        );
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let image = image();
        for position in 0..image.len() {
            let mut damaged = image.clone();
            damaged[position] ^= 0x10;
            assert!(read_image(&damaged[..]).is_err(), "byte {position} was flipped");
            assert!(read_image(&image[..position]).is_err(), "cut at {position}");
        }
    }
}
