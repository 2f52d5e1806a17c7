//! The file of `flotilla snapshot`: everything that a cluster is, in one file with checksums.
//!
//! It has the objects at one revision and the keys that the cluster's life hangs on, so whoever holds it holds
//! the cluster. Pure: reads and writes streams; knows neither files nor servers.
//!
//! *Guarantees*: what is read is what was written, whole, or the error names the first byte that is not.
//!
//! The file: [`MAGIC`], then blocks (`blocks`): one with the [`Header`] as JSON, one with the [`Keys`] as
//! JSON, the store's image cut into pieces, one with the [`Summary`] as JSON; then SHA-256 of all before it.

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        reason = "an expectation is made for one check"
    )
)]

mod blocks;
mod summary;

use std::io::{self, Read, Write};

use flotilla_store::{ReadImageError, Revision, Snapshot, read_image, write_image};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use blocks::{BlockReader, BlockWriter, Kind};
pub use summary::{KindCount, Summary};

/// What such a file begins with; the last two characters are the version of the form of the blocks.
pub const MAGIC: &[u8; 8] = b"FLTBAK01";
/// The version of what is in the blocks. A program reads files of its own version and of older ones.
pub const FORMAT: u32 = 1;

/// Where a file comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The version of the file's contents.
    pub format: u32,
    /// The version of Flotilla that wrote it.
    pub flotilla: String,
    /// The cluster's identity at that time.
    pub cluster: String,
    /// The server that wrote it.
    pub server: String,
    /// When, as RFC 3339.
    pub taken_at: String,
    /// The revision of the newest change in it.
    pub revision: u64,
    /// The newest term of a leader in it.
    pub term: u64,
}

/// What a cluster cannot be continued without.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// The authority's certificate, PEM.
    pub ca_certificate: String,
    /// The authority's key, PEM.
    pub ca_key: String,
    /// The key of service accounts' tokens, PEM.
    pub service_account_key: String,
}

/// Keys are never printed.
impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Keys(…)")
    }
}

/// A file that was read and found whole.
#[derive(Debug)]
pub struct Backup {
    /// Where it comes from.
    pub header: Header,
    /// The cluster's keys.
    pub keys: Keys,
    /// The objects.
    pub objects: Snapshot,
    /// How many objects there are of each kind.
    pub summary: Summary,
    /// SHA-256 of everything before it, in hexadecimal digits.
    pub sha256: String,
    /// Length of the file.
    pub bytes: u64,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackupError {
    /// The stream failed.
    #[error("the snapshot cannot be read")]
    Read(#[source] io::Error),
    /// Something else.
    #[error("this is no snapshot of a Flotilla cluster: it does not begin with \"FLTBAK\"")]
    Foreign,
    /// Written by a later release.
    #[error(
        "the snapshot has format {found}, and this release of flotilla reads up to {known}: use the release that \
         wrote it, or a later one"
    )]
    Newer {
        /// Of the file.
        found: u32,
        /// Of this program.
        known: u32,
    },
    /// It is not what was written.
    #[error("the snapshot is damaged at byte {at}: {what}; use another copy of it")]
    Damaged {
        /// Where the block begins that is not what was written.
        at: u64,
        /// What is wrong there.
        what: String,
    },
    /// It ends too early.
    #[error("the snapshot ends at byte {at}, before its end mark: it was not copied or saved to its end")]
    CutOff {
        /// Its length.
        at: u64,
    },
}

/// Writes a whole file. The header's revision is the objects'.
pub fn write(header: &Header, keys: &Keys, objects: &Snapshot, out: impl Write) -> io::Result<()> {
    let mut out = BlockWriter::new(out)?;
    out.block(Kind::Header, &json(header))?;
    out.block(Kind::Keys, &json(keys))?;
    let mut pieces = out.pieces(Kind::Image);
    write_image(objects, header.term, &mut pieces)?;
    pieces.finish()?;
    out.block(Kind::Summary, &json(&Summary::of(objects)))?;
    out.finish()
}

/// Reads and checks a whole file.
pub fn read(input: impl Read) -> Result<Backup, ReadBackupError> {
    let mut input = BlockReader::new(input)?;
    let header: Header = parse(&mut input, Kind::Header)?;
    if header.format > FORMAT {
        return Err(ReadBackupError::Newer {
            found: header.format,
            known: FORMAT,
        });
    }
    let keys: Keys = parse(&mut input, Kind::Keys)?;
    let at = input.position();
    let (objects, _) = read_image(input.pieces(Kind::Image)).map_err(|error| image_error(error, at))?;
    let at = input.position();
    let summary: Summary = parse(&mut input, Kind::Summary)?;
    if Revision(header.revision) != objects.revision() || summary != Summary::of(&objects) {
        return Err(ReadBackupError::Damaged {
            at,
            what: "its parts do not belong together".to_owned(),
        });
    }
    let (sha256, bytes) = input.finish()?;
    Ok(Backup {
        header,
        keys,
        objects,
        summary,
        sha256,
        bytes,
    })
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and numbers can be written as JSON")
}

fn parse<T: DeserializeOwned>(input: &mut BlockReader<impl Read>, kind: Kind) -> Result<T, ReadBackupError> {
    let at = input.position();
    let block = input.expect(kind)?;
    serde_json::from_slice(&block).map_err(|error| ReadBackupError::Damaged {
        at,
        what: format!("the {kind} cannot be understood ({error})"),
    })
}

/// The image is read through the blocks, whose errors come back inside of its own.
fn image_error(error: ReadImageError, at: u64) -> ReadBackupError {
    match error {
        ReadImageError::Read(error) => match error.downcast::<ReadBackupError>() {
            Ok(inner) => inner,
            Err(error) => ReadBackupError::Damaged {
                at,
                what: error.to_string(),
            },
        },
        error => ReadBackupError::Damaged {
            at,
            what: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
