//! Terminal sizes out of a stream of JSON objects, whatever the cuts. Pure.

use flotilla_tunnel::request::Size;

/// A size is some thirty bytes; what is longer is none.
const PENDING_BYTES_MAX: usize = 1 << 10;

/// What has come in of a size that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    pending: Vec<u8>,
}

impl Sizes {
    /// The newest whole size. What is no JSON is dropped: a wrong size is no reason to end a session.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<Size> {
        self.pending.extend_from_slice(bytes);
        let mut found = serde_json::Deserializer::from_slice(&self.pending).into_iter::<Size>();
        let mut newest = None;
        let is_partial = loop {
            match found.next() {
                Some(Ok(size)) => newest = Some(size),
                Some(Err(error)) => break error.is_eof(),
                None => break true,
            }
        };
        let taken = match is_partial && self.pending.len() - found.byte_offset() < PENDING_BYTES_MAX {
            true => found.byte_offset(),
            false => self.pending.len(),
        };
        self.pending.drain(..taken);
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_whatever_the_cuts() {
        let text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":50}\n";
        for cut in 0..text.len() {
            let mut sizes = Sizes::default();
            let found = [sizes.push(&text[..cut]), sizes.push(&text[cut..])];
            let newest = found.into_iter().flatten().next_back().unwrap();
            assert_eq!((newest.width, newest.height), (100, 50), "{cut}");
        }
    }

    #[test]
    fn noise_is_dropped_and_does_not_grow() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.push(b"nonsense"), None);
        assert!(sizes.push(b"{\"Width\":1,\"Height\":2}").is_some());
        for _ in 0..1000 {
            sizes.push(b"{\"Width\":\"");
        }
        assert!(sizes.pending.len() <= PENDING_BYTES_MAX);
    }
}
