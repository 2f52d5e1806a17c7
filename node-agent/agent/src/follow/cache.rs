//! What is known of one resource, in a file that only grows until it is mostly waste.
//!
//! *Guarantees*: what is read back is a state that the resource had: every record has a checksum, and the first that
//! does not fit ends the file. Nothing is synced: after a power cut the state may be an older one, from which the
//! next stream goes on. A file that cannot be written costs the next start its head start and nothing else. Only root
//! reads it, and one of secrets ([`Cache::without_traces`]) is written anew whenever something in it is outdated, so that
//! a key that was replaced does not stay on the disk.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flotilla_report::report;

const MAGIC: &[u8] = b"flotilla-follow-1\n";
/// Length and checksum before each record's content.
const HEAD: usize = 8;
/// Waste below this is not worth a rewrite.
const WASTE_MIN: u64 = 1 << 20;
/// So far may the kept revision lag behind when nothing else is written.
const REVISION_LAG_MAX: u64 = 256;

const OBJECT: u8 = 1;
const GONE: u8 = 2;
const COMPLETE: u8 = 3;

/// Where an object lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
}

impl Place {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    revision: u64,
    /// Of the record in the file; zero when it could not be written.
    offset: u64,
    length: u32,
}

/// The places and revisions of all objects, and the file that holds their content.
pub(super) struct Cache {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    live: u64,
    objects: HashMap<Place, Kept>,
    revision: u64,
    written_revision: u64,
    /// Nothing outdated may stay in the file.
    is_traceless: bool,
    has_traces: bool,
}

impl Cache {
    /// Knows nothing and has no file before [`Cache::open`].
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            size: 0,
            live: 0,
            objects: HashMap::new(),
            revision: 0,
            written_revision: 0,
            is_traceless: false,
            has_traces: false,
        }
    }

    /// The same for what must not outlive its object.
    pub(super) fn without_traces(path: PathBuf) -> Self {
        Self {
            is_traceless: true,
            ..Self::new(path)
        }
    }

    /// Reads the file back; returns the objects. They are handed out only if a whole list was once complete.
    pub(super) fn open(&mut self) -> Vec<Bytes> {
        let content = Bytes::from(std::fs::read(&self.path).unwrap_or_default());
        let end = self.replay(&content);
        if self.revision == 0 {
            self.objects.clear();
        }
        self.live = self.objects.values().map(|kept| u64::from(kept.length)).sum();
        let opened = match end {
            // A file of nothing but waste, or of another format, begins anew.
            Some(end) if self.revision > 0 => self.reopen(end),
            _ => self.begin(),
        };
        self.note(opened);
        let json = |kept: &Kept| record(&content, kept.offset).map(|(record, _)| record.slice(9..));
        self.objects.values().filter_map(json).collect()
    }

    /// Forgets what an earlier agent knew.
    pub(super) fn begin_anew(&mut self) {
        let begun = self.begin();
        self.note(begun);
    }

    /// Everything up to here is known.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn revision_of(&self, place: &Place) -> Option<u64> {
        self.objects.get(place).map(|kept| kept.revision)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.objects.keys()
    }

    pub(super) fn put(&mut self, place: Place, revision: u64, json: &[u8]) {
        let (offset, length) = self.append(OBJECT, revision, &[json]);
        let kept = Kept {
            revision,
            offset,
            length,
        };
        self.live += u64::from(length);
        if let Some(old) = self.objects.insert(place, kept) {
            self.live -= u64::from(old.length);
            self.has_traces = true;
        }
    }

    pub(super) fn remove(&mut self, place: &Place) {
        if let Some(old) = self.objects.remove(place) {
            self.live -= u64::from(old.length);
            self.has_traces = true;
            self.append(
                GONE,
                0,
                &[place.namespace.as_bytes(), b"/", place.name.as_bytes()],
            );
        }
    }

    /// Everything up to `revision` has been told.
    pub(super) fn complete(&mut self, revision: u64) {
        self.revision = revision;
        let is_first = self.written_revision == 0;
        if is_first || revision.saturating_sub(self.written_revision) >= REVISION_LAG_MAX {
            self.append(COMPLETE, revision, &[]);
            self.written_revision = revision;
        }
        let must_forget = self.is_traceless && std::mem::take(&mut self.has_traces);
        if must_forget || self.size > 2 * self.live + WASTE_MIN {
            let rewritten = self.rewrite();
            self.note(rewritten);
        }
    }

    /// Takes the records over; returns where the last whole one ends.
    fn replay(&mut self, content: &Bytes) -> Option<u64> {
        let mut at = content.starts_with(MAGIC).then_some(MAGIC.len() as u64)?;
        while let Some((record, next)) = record(content, at) {
            let revision = u64::from_le_bytes(record[1..9].try_into().expect("nine bytes were checked"));
            let kept = Kept {
                revision,
                offset: at,
                length: u32::try_from(next - at).unwrap_or(u32::MAX),
            };
            match record[0] {
                OBJECT => {
                    if let Some((place, revision)) = place_of(&record[9..]) {
                        self.objects.insert(place, Kept { revision, ..kept });
                    }
                }
                GONE => {
                    if let Some((namespace, name)) = text(&record[9..]).split_once('/') {
                        self.objects.remove(&Place::new(namespace, name));
                    }
                }
                _ => (self.revision, self.written_revision) = (revision, revision),
            }
            at = next;
        }
        Some(at)
    }

    fn append(&mut self, kind: u8, revision: u64, parts: &[&[u8]]) -> (u64, u32) {
        let Some(file) = &mut self.file else {
            return (0, 0);
        };
        let bytes = encode(kind, revision, parts);
        let (offset, length) = (self.size, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        match file.write_all(&bytes) {
            Ok(()) => {
                self.size += u64::from(length);
                (offset, length)
            }
            Err(error) => {
                self.note(Err(error));
                (0, 0)
            }
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut file = create(&self.path)?;
        file.write_all(MAGIC)?;
        (self.size, self.file) = (MAGIC.len() as u64, Some(file));
        Ok(())
    }

    fn reopen(&mut self, end: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).append(true).open(&self.path)?;
        file.set_len(end)?;
        (self.size, self.file) = (end, Some(file));
        Ok(())
    }

    /// Copies what is live to a new file.
    fn rewrite(&mut self) -> io::Result<()> {
        let Some(old) = self.file.take() else {
            return Ok(());
        };
        let fresh = self.path.with_extension("new");
        let mut file = io::BufWriter::new(create(&fresh)?);
        file.write_all(MAGIC)?;
        let mut size = MAGIC.len() as u64;
        let mut buffer = Vec::new();
        for kept in self.objects.values_mut() {
            buffer.resize(kept.length as usize, 0);
            old.read_exact_at(&mut buffer, kept.offset)?;
            file.write_all(&buffer)?;
            kept.offset = size;
            size += u64::from(kept.length);
        }
        let last = encode(COMPLETE, self.revision, &[]);
        file.write_all(&last)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        std::fs::rename(&fresh, &self.path)?;
        self.written_revision = self.revision;
        (self.size, self.file) = (size + last.len() as u64, Some(file));
        Ok(())
    }

    /// Goes on without a file when there is trouble with it. What it holds is then not to be relied on.
    fn note(&mut self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.file = None;
            // What is in it may have a hole now.
            let _ = std::fs::remove_file(&self.path);
            tracing::warn!(path = %self.path.display(), error = report(&error), "followed objects are not kept");
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600);
    options.open(path)
}

fn encode(kind: u8, revision: u64, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = 9 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = vec![0; HEAD];
    bytes.reserve(length);
    bytes.push(kind);
    bytes.extend(revision.to_le_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    let checksum = crc32fast::hash(&bytes[HEAD..]);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..HEAD].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The record at an offset and where the next one begins; none when it is torn.
fn record(content: &Bytes, at: u64) -> Option<(Bytes, u64)> {
    let at = usize::try_from(at).ok()?;
    let number = |from: usize| Some(u32::from_le_bytes(content.get(from..from + 4)?.try_into().ok()?));
    let (length, checksum) = (number(at)? as usize, number(at + 4)?);
    let begin = at + HEAD;
    let found = content.get(begin..begin.checked_add(length)?)?;
    let fits = length >= 9 && crc32fast::hash(found) == checksum;
    fits.then(|| (content.slice(begin..begin + length), (begin + length) as u64))
}

fn place_of(json: &[u8]) -> Option<(Place, u64)> {
    #[derive(serde::Deserialize)]
    struct Partial {
        metadata: PartialMeta,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct PartialMeta {
        #[serde(default)]
        namespace: String,
        #[serde(default)]
        name: String,
        #[serde(default)]
        resource_version: String,
    }
    let PartialMeta {
        namespace,
        name,
        resource_version,
    } = serde_json::from_slice::<Partial>(json).ok()?.metadata;
    Some((
        Place::new(&namespace, &name),
        resource_version.parse().unwrap_or(0),
    ))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
