//! What a data folder is: the version of its form, and whose it is.
//!
//! A small file of JSON, so that a person can read it too. It is written whole under another name, synced and
//! renamed. A folder without it is of the first version and of a cluster that was never reset or restored.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::OpenError;
use crate::platform::Files;

/// The version of log, snapshots and committed file. A replica opens folders of this version and of older ones.
pub(crate) const FORMAT: u32 = 1;
/// The identity of a cluster whose folders do not tell one.
pub(crate) const FIRST_CLUSTER: &str = "first";
const NAME: &str = "about.json";
const PARTIAL_NAME: &str = "about.json.partial";
/// The file is far smaller; a longer one is none.
const BYTES_MAX: usize = 64 << 10;

/// What a data folder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// The version of the folder's form.
    pub(crate) format: u32,
    /// The identity of the cluster. A reset or restored cluster has a new one.
    pub(crate) cluster: String,
    /// Identities that the cluster had before; who still has one of those was left behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) former: Vec<String>,
}

impl About {
    /// Of a cluster that was never reset or restored.
    pub(crate) fn new(cluster: &str) -> About {
        About {
            format: FORMAT,
            cluster: cluster.to_owned(),
            former: Vec::new(),
        }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join(NAME)
    }

    /// Reads the file, if there is one. Blocks.
    pub(crate) fn read(files: &dyn Files, folder: &Path) -> Result<Option<About>, OpenError> {
        let path = About::path(folder);
        let content = match read_all(files, &path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::folder(&path)(error)),
        };
        let about: About = serde_json::from_slice(&content)
            .map_err(|error| OpenError::damaged(folder, format!("{}: {error}", path.display())))?;
        if about.format > FORMAT {
            return Err(OpenError::Newer {
                path: folder.to_path_buf(),
                found: about.format,
                known: FORMAT,
            });
        }
        Ok(Some(about))
    }

    /// Writes the file; it is durable when this returns. Blocks.
    pub(crate) fn write(&self, files: &dyn Files, folder: &Path) -> io::Result<()> {
        let partial = folder.join(PARTIAL_NAME);
        match files.remove(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = files.create_new(&partial)?;
        let content = serde_json::to_vec(self).expect("strings and numbers can be written as JSON");
        file.write_all_at(&content, 0)?;
        file.sync()?;
        files.rename_durably(&partial, &About::path(folder))
    }
}

fn read_all(files: &dyn Files, path: &Path) -> io::Result<Vec<u8>> {
    let file = files.open(path)?;
    let mut content = vec![0; BYTES_MAX];
    let mut length = 0;
    while length < content.len() {
        match file.read_at(&mut content[length..], length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    content.truncate(length);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::RealFiles;

    #[test]
    fn what_is_read_is_what_was_written_and_nothing_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(About::read(&RealFiles, folder.path()).unwrap(), None);
        let mut about = About::new("blue");
        about.write(&RealFiles, folder.path()).unwrap();
        about.former.push("green".to_owned());
        about.write(&RealFiles, folder.path()).unwrap();
        assert_eq!(About::read(&RealFiles, folder.path()).unwrap(), Some(about));
    }

    #[test]
    fn a_folder_of_a_later_release_is_refused_with_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let later = r#"{"format": 2, "cluster": "blue", "unheard_of": true}"#;
        std::fs::write(folder.path().join(NAME), later).unwrap();
        let refused = About::read(&RealFiles, folder.path()).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("format 2") && said.contains("up to 1"), "{said}");
        std::fs::write(folder.path().join(NAME), "{").unwrap();
        let refused = About::read(&RealFiles, folder.path()).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    }
}
