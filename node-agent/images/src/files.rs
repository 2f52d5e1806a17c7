//! Files of the store: atomic writes, locks, digests.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::StoreError;

/// Adds what was tried on which file to an error of the system.
pub(crate) trait At<T> {
    /// Names the action and the file.
    fn at(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Io {
            action,
            path: path.to_owned(),
            source: error.into(),
        })
    }
}

/// Replaces a file as a whole: readers see the old bytes or the new ones, also after a power cut.
///
/// What a killed process leaves half written stays in `scratch`, a folder of the same file system.
pub(crate) fn write_atomically(scratch: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(scratch).at("create a file in", scratch)?;
    file.write_all(bytes).at("write", file.path())?;
    file.as_file().sync_data().at("sync", file.path())?;
    file.persist(path)
        .map_err(|error| error.error)
        .at("replace", path)?;
    sync_folder(folder)
}

/// Makes renames in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .at("sync", folder)
}

/// Locks a file until the answer is dropped. `None`: another process has the lock and `operation` does not wait.
pub(crate) fn lock(path: &Path, operation: FlockOperation) -> Result<Option<File>, StoreError> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .at("open", path)?;
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).at("lock", path),
        }
    }
}

/// Names in a folder; none when it does not exist.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("list", folder),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.at("list", folder)?.file_name().into_string());
    }
    Ok(names)
}

/// `sha256:` and the digest in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The hexadecimal part of a `sha256:` digest.
pub(crate) fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_written_is_never_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, folder) = (dir.path().join("scratch"), dir.path().join("holds"));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a");
        assert!(
            write_atomically(&scratch, &path, b"1").is_err(),
            "there is no scratch folder"
        );
        fs::create_dir_all(&scratch).unwrap();
        write_atomically(&scratch, &path, b"1").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"1");
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    }
}
