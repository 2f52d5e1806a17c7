//! Entries of a layer's tar stream: long names and pax records joined to what they describe.
//!
//! The tar crate reads such records into memory whatever their size, so this reads them itself, with a cap.

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

use crate::UnpackError;

/// No name or pax record is longer than this.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// One file, folder, link or device of a layer, as the archive describes it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime_seconds: i64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

/// Calls `each` with every entry and its content; at most `entries_max` headers are read.
pub(crate) fn for_each(
    stream: impl Read,
    entries_max: u64,
    mut each: impl FnMut(&Entry, &mut dyn Read) -> Result<(), UnpackError>,
) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(stream);
    let mut pending = Records::default();
    let mut count = 0;
    for raw in archive.entries()?.raw(true) {
        let mut raw = raw?;
        count += 1;
        if count > entries_max {
            return Err(UnpackError::TooManyEntries { max: entries_max });
        }
        match raw.header().entry_type() {
            EntryType::XGlobalHeader => {}
            EntryType::GNULongName => pending.path = Some(read_name(&mut raw)?),
            EntryType::GNULongLink => pending.link = Some(read_name(&mut raw)?),
            EntryType::XHeader => pending.read_pax(&read_record(&mut raw)?)?,
            kind => {
                let entry = std::mem::take(&mut pending).describe(raw.header(), kind)?;
                each(&entry, &mut raw)?;
            }
        }
    }
    Ok(())
}

/// What records before an entry say about it.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime_seconds: Option<i64>,
    size: Option<u64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Records {
    fn read_pax(&mut self, record: &[u8]) -> Result<(), UnpackError> {
        for extension in PaxExtensions::new(record) {
            let extension = extension?;
            let key = extension.key().map_err(invalid)?;
            let value = extension.value_bytes();
            match key {
                "path" => self.path = Some(value.to_owned()),
                "linkpath" => self.link = Some(value.to_owned()),
                "uid" => self.uid = Some(number(value)?),
                "gid" => self.gid = Some(number(value)?),
                "size" => self.size = Some(number(value)?),
                "mtime" => {
                    let whole = value.split(|&byte| byte == b'.').next().unwrap_or_default();
                    self.mtime_seconds = Some(number(whole)?);
                }
                _ if key.starts_with("GNU.sparse.") => {
                    return Err(UnpackError::Kind {
                        kind: "sparse file".into(),
                    });
                }
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        self.xattrs.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        Ok(())
    }

    fn describe(self, header: &Header, kind: EntryType) -> Result<Entry, UnpackError> {
        // The content is read by the header's size, so a record that says otherwise would shift all that follows.
        if self
            .size
            .is_some_and(|size| header.entry_size().is_ok_and(|told| told != size))
        {
            return Err(invalid("an entry's size differs between its header and its pax record").into());
        }
        let old = header.as_old();
        let own = |field: &[u8], read: io::Result<u64>| {
            number_or_blank(field, read).and_then(|number| u32::try_from(number).map_err(invalid))
        };
        let device = match kind {
            EntryType::Char | EntryType::Block => (
                header.device_major().ok().flatten().unwrap_or(0),
                header.device_minor().ok().flatten().unwrap_or(0),
            ),
            _ => (0, 0),
        };
        Ok(Entry {
            path: self.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: self
                .link
                .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
            kind,
            mode: header.mode()? & 0o7777,
            uid: self.uid.map_or_else(|| own(&old.uid, header.uid()), Ok)?,
            gid: self.gid.map_or_else(|| own(&old.gid, header.gid()), Ok)?,
            mtime_seconds: match self.mtime_seconds {
                Some(seconds) => seconds,
                None => i64::try_from(number_or_blank(&old.mtime, header.mtime())?).map_err(invalid)?,
            },
            device,
            xattrs: self.xattrs,
        })
    }
}

/// A field that its writer left blank means zero.
fn number_or_blank(field: &[u8], read: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        Ok(0)
    } else {
        read
    }
}

fn read_record(raw: &mut dyn Read) -> Result<Vec<u8>, UnpackError> {
    let mut record = Vec::new();
    raw.take(RECORD_BYTES_MAX + 1).read_to_end(&mut record)?;
    if record.len() as u64 > RECORD_BYTES_MAX {
        return Err(invalid("a name or pax record is longer than 1 MiB").into());
    }
    Ok(record)
}

fn read_name(raw: &mut dyn Read) -> Result<Vec<u8>, UnpackError> {
    let mut name = read_record(raw)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn number<N: std::str::FromStr>(text: &[u8]) -> Result<N, UnpackError> {
    let text = std::str::from_utf8(text).map_err(invalid)?;
    text.parse()
        .map_err(|_| invalid("a pax record has a malformed number").into())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
