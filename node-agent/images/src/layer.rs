//! One layer on its way from a blob to an unpacked folder: decompressed, measured, verified.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::UnpackError;
use crate::unpack::unpack;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What one archive may cost. The defaults are far above any honest image.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a layer once decompressed.
    pub layer_bytes_max: u64,
    /// Files, folders and links of a layer.
    pub layer_entries_max: u64,
    /// Decompressed bytes for each compressed byte, counted once `ratio_from_bytes` have been written.
    pub ratio_max: u64,
    /// Below this size any ratio is harmless.
    pub ratio_from_bytes: u64,
    /// Layers of an image; overlayfs takes no more than 500 and its options fit a page.
    pub layers_max: usize,
    /// Bytes of a manifest, an index or a configuration.
    pub document_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes_max: 16 << 30,
            layer_entries_max: 1_000_000,
            ratio_max: 250,
            ratio_from_bytes: 64 << 20,
            layers_max: 127,
            document_bytes_max: 4 << 20,
        }
    }
}

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The compressed bytes are not what the manifest names.
    #[error("the layer's digest is {found}, its manifest says {expected}")]
    Digest {
        /// What the manifest says.
        expected: String,
        /// What the bytes have.
        found: String,
    },
    /// The decompressed bytes are not what the configuration names.
    #[error("the unpacked layer's digest is {found}, the image's configuration says {expected}")]
    DiffId {
        /// What the configuration says.
        expected: String,
        /// What the bytes have.
        found: String,
    },
    /// The stream is damaged, too large, or has entries that are refused.
    #[error("cannot unpack the layer")]
    Unpack(#[from] UnpackError),
}

/// Unpacks a compressed layer into an empty folder, returns the bytes of its files, and verifies both digests.
pub(crate) fn unpack_layer(
    blob: impl Read,
    digest: Option<&str>,
    diff_id: &str,
    folder: &Path,
    limits: &Limits,
) -> Result<u64, LayerError> {
    let mut compressed = Measured::new(blob);
    let consumed = Rc::clone(&compressed.count);
    let mut plain = Measured::new(Capped {
        inner: decompress(&mut compressed)?,
        count: 0,
        consumed,
        limits: *limits,
    });
    let bytes = unpack(&mut plain, folder, limits.layer_entries_max)?;
    // Tar ends before its stream does; the digests cover the rest as well.
    io::copy(&mut plain, &mut io::sink()).map_err(UnpackError::Read)?;
    let found = plain.finish();
    drop(plain);
    io::copy(&mut compressed, &mut io::sink()).map_err(UnpackError::Read)?;
    if let Some(expected) = digest {
        let found = compressed.finish();
        if found != expected {
            return Err(LayerError::Digest {
                expected: expected.to_owned(),
                found,
            });
        }
    }
    if found != diff_id {
        return Err(LayerError::DiffId {
            expected: diff_id.to_owned(),
            found,
        });
    }
    Ok(bytes)
}

/// Whether a stream begins as gzip or zstd do.
pub(crate) fn is_compressed(stream: &mut impl BufRead) -> io::Result<bool> {
    let start = stream.fill_buf()?;
    Ok(start.starts_with(&GZIP) || start.starts_with(&ZSTD))
}

/// Decompresses gzip and zstd, told by their first bytes; anything else is passed on.
pub(crate) fn decompress<'a>(stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>, UnpackError> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let start = stream.fill_buf()?;
    if start.starts_with(&GZIP) {
        Ok(Box::new(MultiGzDecoder::new(stream)))
    } else if start.starts_with(&ZSTD) {
        Ok(Box::new(zstd::Decoder::with_buffer(stream)?))
    } else {
        Ok(Box::new(stream))
    }
}

/// Counts and hashes what is read through it.
struct Measured<R> {
    inner: R,
    hash: Sha256,
    count: Rc<Cell<u64>>,
}

impl<R> Measured<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            count: Rc::default(),
        }
    }

    fn finish(&mut self) -> String {
        format!("sha256:{}", hex::encode(self.hash.finalize_reset()))
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Fails once more was decompressed than the limits allow.
struct Capped<R> {
    inner: R,
    count: u64,
    consumed: Rc<Cell<u64>>,
    limits: Limits,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        let Limits {
            layer_bytes_max,
            ratio_max,
            ratio_from_bytes,
            ..
        } = self.limits;
        if self.count > layer_bytes_max {
            return Err(io::Error::other(format!(
                "the layer has more than {layer_bytes_max} bytes once unpacked"
            )));
        }
        if self.count > ratio_from_bytes && self.count / ratio_max > self.consumed.get() {
            return Err(io::Error::other(format!(
                "the layer unpacks to more than {ratio_max} times its size"
            )));
        }
        Ok(count)
    }
}
