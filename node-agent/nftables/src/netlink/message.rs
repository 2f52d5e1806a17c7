//! Building and reading netlink messages. Pure.

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM_NFTABLES: u16 = 10;
const HEADER: usize = 16;

/// Messages that are sent together. The number of a message is its sequence number.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    what: Vec<&'static str>,
}

impl Messages {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Adds a message with netfilter's header; `build` adds its attributes. `what` names it in errors.
    pub fn add(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        family: u8,
        build: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.add_for(what, kind, flags, (family, 0), build);
    }

    fn add_for(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        (family, resource): (u8, u16),
        build: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        let sequence = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        build(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.starts.push(start);
        self.what.push(what);
    }

    /// All messages between the marks of a transaction, the last of which is acknowledged.
    pub(crate) fn into_transaction(self) -> (Vec<u8>, Vec<&'static str>) {
        let mut all = Messages::default();
        let mark = (0, SUBSYSTEM_NFTABLES);
        all.add_for("the begin of a transaction", BATCH_BEGIN, 0, mark, |_| {});
        all.bytes.reserve(self.bytes.len() + 2 * HEADER);
        let offset = all.bytes.len();
        all.bytes.extend_from_slice(&self.bytes);
        for (start, what) in self.starts.iter().zip(&self.what) {
            let start = start + offset;
            let sequence = u32::try_from(all.starts.len()).unwrap_or(u32::MAX);
            all.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            all.starts.push(start);
            all.what.push(what);
        }
        all.acknowledge_last();
        all.add_for("the end of a transaction", BATCH_END, 0, mark, |_| {});
        (all.bytes, all.what)
    }

    /// Each message on its own, acknowledged.
    pub(crate) fn into_requests(self) -> impl Iterator<Item = (Vec<u8>, &'static str)> {
        let ends = self.starts.iter().skip(1).copied().chain([self.bytes.len()]);
        let ranges: Vec<_> = self.starts.iter().copied().zip(ends).collect();
        ranges
            .into_iter()
            .zip(self.what)
            .map(move |((start, end), what)| {
                let mut one = Messages {
                    bytes: self.bytes[start..end].to_vec(),
                    starts: vec![0],
                    what: vec![what],
                };
                one.bytes[8..12].fill(0);
                one.acknowledge_last();
                (one.bytes, what)
            })
    }

    fn acknowledge_last(&mut self) {
        if let Some(start) = self.starts.last() {
            let at = start + 6..start + 8;
            let flags = u16::from_ne_bytes([self.bytes[at.start], self.bytes[at.start + 1]]);
            self.bytes[at].copy_from_slice(&(flags | NLM_F_ACK).to_ne_bytes());
        }
    }
}

/// The attributes of one message or nest.
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Adds an attribute of bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
    }

    /// Adds one of text, with a zero at its end.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// Adds a number in the network's order.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Adds a long number in the network's order.
    pub fn long(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Adds an attribute that holds others.
    pub fn nest(&mut self, kind: u16, build: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        build(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Reads attributes: type and value. Ends at the first that is malformed.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_written() {
        let mut bytes = Vec::new();
        let mut attributes_ = Attributes(&mut bytes);
        attributes_.text(1, "abc");
        attributes_.number(2, 7);
        attributes_.nest(3, |nest| nest.bytes(4, &[1, 2, 3, 4, 5]));
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found[0], (1, &b"abc\0"[..]));
        assert_eq!(found[1], (2, &[0, 0, 0, 7][..]));
        assert_eq!(
            attributes(found[2].1).collect::<Vec<_>>(),
            [(4, &[1, 2, 3, 4, 5][..])]
        );
        assert_eq!(
            attributes(&bytes[..bytes.len() - 8]).count(),
            2,
            "a torn one ends the list"
        );
    }

    #[test]
    fn only_the_last_message_of_a_transaction_is_acknowledged() {
        let mut messages = Messages::default();
        messages.add("a", 0xa00, 0, 2, |_| {});
        messages.add("b", 0xa01, 0, 2, |_| {});
        let (bytes, what) = messages.into_transaction();
        let flags: Vec<u16> = (0..4)
            .map(|at| u16::from_ne_bytes([bytes[at * 20 + 6], bytes[at * 20 + 7]]))
            .collect();
        assert_eq!(flags, [1, 1, 5, 1]);
        assert_eq!(what.len(), 4);
        assert_eq!(bytes[2 * 20 + 8], 2, "sequence numbers count on");
    }
}
