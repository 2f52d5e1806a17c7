//! From the lines of a log file to what a reader sees. Pure.

use jiff::Timestamp;

/// Turns pieces of a log file into output, whatever the cuts.
#[derive(Debug)]
pub(super) struct Formatter {
    since: Option<Timestamp>,
    timestamps: bool,
    /// Bytes that may still be given out.
    remaining: Option<u64>,
    /// The beginning of a file's line.
    cut: Vec<u8>,
    /// Whether the next line goes on where a partial one has ended.
    continues: bool,
    /// Whether the container's line that is being put together is wanted.
    is_wanted: bool,
}

impl Formatter {
    pub(super) fn new(since: Option<Timestamp>, timestamps: bool, limit_bytes: Option<u64>) -> Formatter {
        let remaining = limit_bytes;
        Formatter {
            since,
            timestamps,
            remaining,
            cut: Vec::new(),
            continues: false,
            is_wanted: true,
        }
    }

    /// Whether the limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.remaining == Some(0)
    }

    pub(super) fn format(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(bytes.len());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                None => self.cut.extend_from_slice(piece),
                Some(line) if self.cut.is_empty() => self.push(line, &mut output),
                Some(line) => {
                    let mut whole = std::mem::take(&mut self.cut);
                    whole.extend_from_slice(line);
                    self.push(&whole, &mut output);
                }
            }
        }
        if let Some(remaining) = &mut self.remaining {
            output.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
            *remaining -= output.len() as u64;
        }
        output
    }

    fn push(&mut self, line: &[u8], output: &mut Vec<u8>) {
        // A line of another form was cut by a full disk: nothing can be told about it.
        let Some(entry) = parse(line) else { return };
        if !self.continues {
            self.is_wanted = self.since.is_none_or(|since| is_since(entry.time, since));
            if self.is_wanted && self.timestamps {
                output.extend_from_slice(entry.time);
                output.push(b' ');
            }
        }
        if self.is_wanted {
            output.extend_from_slice(entry.text);
            if !entry.is_partial {
                output.push(b'\n');
            }
        }
        self.continues = entry.is_partial;
    }
}

/// One line of a log file.
pub(super) struct Entry<'a> {
    time: &'a [u8],
    /// The container's line goes on in the next entry.
    pub(super) is_partial: bool,
    text: &'a [u8],
}

pub(super) fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (time, _stream, tag, text) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some(Entry {
        time,
        is_partial: tag == b"P",
        text,
    })
}

fn is_since(time: &[u8], since: Timestamp) -> bool {
    let time = std::str::from_utf8(time)
        .ok()
        .and_then(|time| time.parse::<Timestamp>().ok());
    // Better a line too many than one that is lost for want of a time.
    time.is_none_or(|time| time >= since)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "1970-01-01T00:00:01.000000000Z stdout F one\n\
                       broken\n\
                       1970-01-01T00:00:02.000000000Z stderr P tw\n\
                       1970-01-01T00:00:03.000000000Z stderr F o\n\
                       1970-01-01T00:00:04.000000000Z stdout F \n";

    fn format(mut formatter: Formatter, piece: usize) -> String {
        let pieces = LOG.as_bytes().chunks(piece).map(|bytes| formatter.format(bytes));
        String::from_utf8(pieces.collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn cuts_make_no_difference() {
        for piece in [1, 7, 1000] {
            assert_eq!(format(Formatter::new(None, false, None), piece), "one\ntwo\n\n");
            assert_eq!(format(Formatter::new(None, false, Some(6)), piece), "one\ntw");
        }
    }

    #[test]
    fn a_line_has_the_time_of_its_first_part() {
        assert_eq!(
            format(Formatter::new(Timestamp::from_second(2).ok(), true, None), 9),
            "1970-01-01T00:00:02.000000000Z two\n1970-01-01T00:00:04.000000000Z \n"
        );
        assert_eq!(
            format(Formatter::new(Timestamp::from_second(3).ok(), false, None), 9),
            "\n"
        );
    }
}
