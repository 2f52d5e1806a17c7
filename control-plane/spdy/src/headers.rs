//! Header blocks: name and value pairs, compressed with a dictionary and a memory that lasts for the connection.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::dictionary::DICTIONARY;

/// More than this in one block, unpacked, is no honest header.
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// The headers of a stream, names in lower case. A name may have several values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The first value of a header, whatever the case of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Why a header block cannot be read. Nothing that follows on the connection can be either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadersError {
    /// Not compressed with SPDY's dictionary, or damaged.
    #[error("the peer's headers cannot be decompressed")]
    Compression,
    /// Unpacks to too much.
    #[error("the peer's headers are larger than {BLOCK_BYTES_MAX} bytes")]
    TooLarge,
    /// No pairs of names and values.
    #[error("the peer's headers are malformed")]
    Malformed,
}

/// Packs header blocks; the blocks of a connection in the order of their sending.
#[derive(Debug)]
pub struct Packer(Compress);

impl Packer {
    /// For a new connection.
    pub fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // Fails only after data was compressed.
        let known = compress.set_dictionary(&DICTIONARY);
        debug_assert!(known.is_ok());
        Self(compress)
    }

    /// One block.
    pub fn pack(&mut self, headers: &Headers) -> Bytes {
        let plain = plain(headers);
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let mut rest = &plain[..];
        loop {
            packed.reserve(64);
            let before = self.0.total_in();
            // Compressing into a growing buffer cannot fail.
            let done = self.0.compress_vec(rest, &mut packed, FlushCompress::Sync);
            debug_assert!(done.is_ok());
            rest = &rest[(self.0.total_in() - before) as usize..];
            if rest.is_empty() && packed.len() < packed.capacity() {
                return packed.into();
            }
        }
    }
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

fn plain(headers: &Headers) -> BytesMut {
    let mut names: Vec<(&str, String)> = Vec::new();
    for (name, value) in &headers.0 {
        match names.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => {
                values.push('\0');
                values.push_str(value);
            }
            None => names.push((name, value.clone())),
        }
    }
    let mut plain = BytesMut::new();
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    plain.put_u32(count(names.len()));
    for (name, values) in names {
        for text in [name, values.as_str()] {
            plain.put_u32(count(text.len()));
            plain.extend_from_slice(text.as_bytes());
        }
    }
    plain
}

/// Unpacks header blocks; the blocks of a connection in the order of their coming.
#[derive(Debug)]
pub struct Unpacker(Decompress);

impl Unpacker {
    /// For a new connection.
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// One block.
    pub fn unpack(&mut self, block: &[u8]) -> Result<Headers, HeadersError> {
        parse(self.inflate(block)?.into())
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, HeadersError> {
        let mut plain = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            let (before, length) = (self.0.total_in(), plain.len());
            let outcome = self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            rest = &rest[(self.0.total_in() - before) as usize..];
            match outcome {
                Ok(Status::Ok | Status::BufError) => {}
                Ok(Status::StreamEnd) => return Err(HeadersError::Compression),
                // Only at the beginning of a connection, and only once.
                Err(error) => {
                    error.needs_dictionary().ok_or(HeadersError::Compression)?;
                    self.0
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| HeadersError::Compression)?;
                    continue;
                }
            }
            if plain.len() > BLOCK_BYTES_MAX {
                return Err(HeadersError::TooLarge);
            }
            if rest.is_empty() && plain.len() < plain.capacity() {
                return Ok(plain);
            }
            if plain.len() == length && self.0.total_in() == before && plain.len() < plain.capacity() {
                return Err(HeadersError::Compression);
            }
            plain.reserve(1024);
        }
    }
}

impl Default for Unpacker {
    fn default() -> Self {
        Self::new()
    }
}

fn parse(mut plain: Bytes) -> Result<Headers, HeadersError> {
    let count = plain.try_get_u32().map_err(|_| HeadersError::Malformed)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut plain)?;
        let values = text(&mut plain)?;
        for value in values.split('\0') {
            headers = headers.with(&name, value);
        }
    }
    Ok(headers)
}

fn text(plain: &mut Bytes) -> Result<String, HeadersError> {
    let length = plain.try_get_u32().map_err(|_| HeadersError::Malformed)? as usize;
    if length > plain.len() {
        return Err(HeadersError::Malformed);
    }
    String::from_utf8(plain.split_to(length).to_vec()).map_err(|_| HeadersError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_one_connection_come_back() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        for number in 0..50 {
            let headers = Headers::new()
                .with("StreamType", "data")
                .with("port", "8080")
                .with("requestid", &number.to_string());
            let found = unpacker.unpack(&packer.pack(&headers)).unwrap();
            assert_eq!(found, headers);
            assert_eq!(found.get("streamType"), Some("data"));
        }
    }

    #[test]
    fn several_values_of_a_name_stay_apart() {
        let headers = Headers::new().with("a", "1").with("a", "2");
        let found = Unpacker::new().unpack(&Packer::new().pack(&headers)).unwrap();
        assert_eq!(found, headers);
        let long = Headers::new().with("a", &"x".repeat(10_000));
        assert_eq!(Unpacker::new().unpack(&Packer::new().pack(&long)).unwrap(), long);
    }

    /// What Go's client sends first: the dictionary's name in the zlib head.
    #[test]
    fn the_first_block_names_the_dictionary() {
        let block = Packer::new().pack(&Headers::new().with("streamtype", "error"));
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn damaged_blocks_are_refused() {
        assert_eq!(
            Unpacker::new().unpack(b"nonsense"),
            Err(HeadersError::Compression)
        );
        let whole = Packer::new().pack(&Headers::new().with("streamtype", "error"));
        // The second half holds little but the mark of a whole block.
        for cut in 0..whole.len() / 2 {
            assert!(Unpacker::new().unpack(&whole[..cut]).is_err(), "{cut}");
        }
        let bomb = Headers::new().with("a", &"x".repeat(10 << 20));
        let refused = Unpacker::new().unpack(&Packer::new().pack(&bomb));
        assert_eq!(refused, Err(HeadersError::TooLarge));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for plain in [
            &[][..],
            &[0, 0, 0, 1],
            &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1],
            &[0xff; 8],
        ] {
            assert_eq!(parse(Bytes::copy_from_slice(plain)), Err(HeadersError::Malformed));
        }
    }
}
