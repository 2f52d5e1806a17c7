//! How log entries lie in sled: cut into chunks, each entry with a checksum.
//!
//! sled writes what is large to files that it never syncs, so no value is larger than [`CHUNK_BYTES`].

use bytes::{BufMut, Bytes, BytesMut};

use crate::consensus::{self, Entry};

/// sled writes whole nodes of about twenty values, and a node above 128 KiB goes to a file that is not synced.
pub(super) const CHUNK_BYTES: usize = 4000;
const HEADER_BYTES: usize = 8;
const LOG_PREFIX: u8 = b'l';

/// Key of one chunk: prefix, index, number of the chunk; so that entries lie in order.
pub(super) fn chunk_key(index: u64, chunk: u32) -> [u8; 13] {
    let mut key = [0; 13];
    key[0] = LOG_PREFIX;
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The index and chunk number of a key.
pub(super) fn parse_key(key: &[u8]) -> Option<(u64, u32)> {
    let key: [u8; 13] = key.try_into().ok()?;
    let index = u64::from_be_bytes(key[1..9].try_into().ok()?);
    let chunk = u32::from_be_bytes(key[9..].try_into().ok()?);
    (key[0] == LOG_PREFIX).then_some((index, chunk))
}

/// Bytes of an entry with length and checksum in front.
pub(super) fn seal(payload: &[u8]) -> Bytes {
    let mut record = BytesMut::with_capacity(HEADER_BYTES + payload.len());
    record.put_u32_le(u32::try_from(payload.len()).expect("entries are limited to megabytes"));
    record.put_u32_le(crc32fast::hash(payload));
    record.put_slice(payload);
    record.freeze()
}

/// The payload of a record, when it is whole and unchanged.
pub(super) fn unseal(record: &[u8]) -> Option<&[u8]> {
    let (header, payload) = record.split_at_checked(HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?);
    let sum = u32::from_le_bytes(header[4..].try_into().ok()?);
    (payload.len() == length as usize && crc32fast::hash(payload) == sum).then_some(payload)
}

/// The keys and values that hold the record of an entry.
pub(super) fn chunks(index: u64, record: &Bytes) -> Vec<([u8; 13], Bytes)> {
    (0..record.len().div_ceil(CHUNK_BYTES))
        .map(|number| {
            let start = number * CHUNK_BYTES;
            let end = record.len().min(start + CHUNK_BYTES);
            (chunk_key(index, number as u32), record.slice(start..end))
        })
        .collect()
}

/// The entry that a record holds; says what is wrong with it otherwise.
pub(super) fn decode_entry(index: u64, record: &[u8]) -> Result<Entry, String> {
    let payload = unseal(record).ok_or_else(|| format!("the checksum of log entry {index} is wrong"))?;
    let entry: Entry = consensus::decode(payload)
        .map_err(|error| format!("log entry {index} cannot be decoded: {error}"))?;
    if entry.log_id.index == index {
        Ok(entry)
    } else {
        Err(format!(
            "log entry {index} says that it is entry {}",
            entry.log_id.index
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::{CommittedLeaderId, EntryPayload, LogId};

    fn entry(bytes: usize) -> Entry {
        let transactions = vec![Bytes::from(vec![7; bytes])];
        let proposals = consensus::Proposals {
            transactions,
            ..Default::default()
        };
        Entry {
            log_id: LogId::new(CommittedLeaderId::new(3, 1), 42),
            payload: EntryPayload::Normal(proposals),
        }
    }

    fn chunks_of(entry: &Entry) -> Vec<([u8; 13], Bytes)> {
        chunks(entry.log_id.index, &seal(&consensus::encode(entry)))
    }

    fn record(entry: &Entry) -> Vec<u8> {
        chunks_of(entry)
            .iter()
            .flat_map(|(_, value)| value.to_vec())
            .collect()
    }

    #[test]
    fn no_chunk_is_larger_than_the_limit_and_together_they_are_the_entry() {
        let entry = entry(3 * CHUNK_BYTES);
        let chunks = chunks_of(&entry);
        assert_eq!(chunks.len(), 4);
        assert!(chunks.iter().all(|(_, value)| value.len() <= CHUNK_BYTES));
        assert_eq!(parse_key(&chunks[3].0), Some((42, 3)));
        let decoded = decode_entry(42, &record(&entry)).unwrap();
        assert_eq!(consensus::encode(&decoded), consensus::encode(&entry));
    }

    #[test]
    fn a_flipped_bit_a_lost_chunk_or_a_wrong_place_is_noticed() {
        let mut record = record(&entry(100));
        assert!(decode_entry(41, &record).is_err());
        assert!(decode_entry(42, &record[..record.len() - 1]).is_err());
        record[50] ^= 1;
        assert!(decode_entry(42, &record).is_err());
    }
}
