//! The store: which references name which images, and where their layers lie.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What an image says about the process it is made for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// First part of the command line.
    pub entrypoint: Vec<String>,
    /// Default arguments after the entrypoint.
    pub cmd: Vec<String>,
    /// Environment, in the image's order.
    pub env: Vec<(String, String)>,
    /// `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// Ports as written, for example `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// Signal that asks the process to stop, for example `SIGQUIT`.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// An image that is ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The normal reference that it was found by.
    pub reference: String,
    /// `sha256:…` of the image's configuration.
    pub id: String,
    /// What it runs.
    pub config: ImageConfig,
    /// Unpacked layers, top first, as overlayfs wants its lower folders.
    pub layers: Vec<PathBuf>,
    /// Size of all layers unpacked.
    pub size_bytes: u64,
}

/// One line of `flotilla image list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Normal references that name it.
    pub references: Vec<String>,
    /// `sha256:…` of the image's configuration.
    pub id: String,
    /// Size of all layers unpacked.
    pub size_bytes: u64,
    /// RFC 3339 time at which the image was built, as the image says.
    pub created: Option<String>,
}

/// Why the store could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why an image could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store failed.
    #[error("the image store failed")]
    Store(#[from] StoreError),
}

/// The image store of one node.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store in `root`, which is made when it does not exist.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Ok(Self { root: root.into() })
    }

    /// Imports every image of an OCI layout (folder or tar) or docker archive and returns their references.
    pub fn import(&self, path: &Path) -> Result<Vec<String>, ImportError> {
        let _ = path;
        Ok(Vec::new())
    }

    /// All images, in the order of their first reference.
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        Ok(Vec::new())
    }

    /// Removes a reference, and what nothing refers to any more. False: there was no such reference.
    pub fn remove(&self, reference: &str) -> Result<bool, StoreError> {
        let _ = reference;
        Ok(false)
    }

    /// Finds an image by any spelling of its reference.
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>, StoreError> {
        let _ = reference;
        Ok(None)
    }

    /// Like [`Store::resolve`], and keeps the image's layers from being collected until [`Store::release`].
    ///
    /// `holder` names the user of the layers, for example `<pod uid>.<container id>`; it survives restarts.
    pub fn hold(&self, reference: &str, holder: &str) -> Result<Option<Image>, StoreError> {
        let _ = holder;
        self.resolve(reference)
    }

    /// Ends what [`Store::hold`] began; unknown holders are no error.
    pub fn release(&self, holder: &str) -> Result<(), StoreError> {
        let _ = holder;
        Ok(())
    }

    /// Everyone who holds layers.
    pub fn holders(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Makes `flotilla.dev/demo:v1` and `:v2` out of the flotilla executable, or brings them up to date.
    pub fn ensure_builtin(&self, executable: &Path) -> Result<(), StoreError> {
        let _ = (executable, &self.root);
        Ok(())
    }
}
