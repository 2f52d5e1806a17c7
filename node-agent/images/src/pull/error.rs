//! Why an image could not be pulled.

use std::io;
use std::path::PathBuf;

use flotilla_report::report;

use crate::credentials::CredentialsError;
use crate::manifest::{Unfit, architecture};
use crate::registries::RegistriesError;
use crate::registry::RegistryError;
use crate::{LayerError, ParseReferenceError, StoreError};

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The reference is malformed.
    #[error("the image's name is malformed")]
    Reference(#[from] ParseReferenceError),
    /// `registries.yaml` cannot be used.
    #[error("the settings of registries cannot be used")]
    Settings(#[from] RegistriesError),
    /// A `config.json` of the node has no credentials that can be used.
    #[error("the credentials in {path} cannot be used")]
    CredentialFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CredentialsError,
    },
    /// A `config.json` of the node cannot be read.
    #[error("cannot read the credentials in {path}")]
    ReadCredentials {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The registry did not give what was asked for.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Neither the mirrors nor the registry gave the image.
    #[error("no registry gave the image: {}", .0.iter().map(|error| report(error)).collect::<Vec<_>>().join("; "))]
    Everywhere(Vec<PullError>),
    /// A manifest or configuration is no such thing.
    #[error("{what} is no manifest or configuration of an image")]
    Document {
        /// Its digest.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The image is for other machines.
    #[error("the image has no variant for linux/{}{}", architecture(), offered(.0))]
    Platform(Vec<String>),
    /// Layers and configuration do not match, or are too many.
    #[error(
        "the image has {layers} layers and its configuration lists {diff_ids}; at most {max} are allowed"
    )]
    Layers {
        /// Layers in the manifest.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
        /// The limit.
        max: usize,
    },
    /// The manifest is of something else than a container image.
    #[error("the artifact's part {digest} has type {kind}, which is no layer: this is not a container image")]
    NotAnImage {
        /// The digest of the part.
        digest: String,
        /// Its media type.
        kind: String,
    },
    /// A digest is none that is understood.
    #[error("{0:?} is not a sha256 digest")]
    BadDigest(String),
    /// A layer is larger than allowed.
    #[error("layer {digest} has {size} bytes; at most {max} are allowed")]
    TooLarge {
        /// The layer.
        digest: String,
        /// Its size as the manifest or the transfer says.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// The transfer ended before the blob's end.
    #[error("the transfer of {digest} ended after {length} of {size} bytes")]
    Short {
        /// The blob.
        digest: String,
        /// Bytes that came.
        length: u64,
        /// Bytes that the manifest says.
        size: u64,
    },
    /// The bytes that came are not the blob.
    #[error(
        "{digest} was sent with the digest {found}: the registry, or something on the way, changes what it stores"
    )]
    Digest {
        /// The blob.
        digest: String,
        /// What came.
        found: String,
    },
    /// A layer was refused.
    #[error("cannot unpack layer {digest}")]
    Layer {
        /// The layer.
        digest: String,
        /// Why.
        source: LayerError,
    },
    /// What was downloaded cannot be kept.
    #[error("cannot keep the download {path}")]
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No other node gave a layer after all.
    #[error("no other node gave layer {digest}")]
    Peer {
        /// The layer.
        digest: String,
    },
    /// The store failed.
    #[error("cannot change the image store")]
    Store(#[from] StoreError),
    /// The node stops, or the work was cut short.
    #[error("the pull was cut short")]
    Stopped,
}

impl PullError {
    /// Whether the same transfer may well succeed a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            PullError::Registry(error) => error.is_passing(),
            PullError::Short { .. } => true,
            _ => false,
        }
    }

    /// Whether another user, or another registry, may have more luck.
    pub(super) fn is_of_place(&self) -> bool {
        matches!(
            self,
            PullError::Registry(_) | PullError::Short { .. } | PullError::Digest { .. }
        )
    }

    /// Whether another user may have more luck with the same registry.
    pub(super) fn is_of_user(&self) -> bool {
        matches!(
            self,
            PullError::Registry(RegistryError::Unauthorized { .. } | RegistryError::NotFound { .. })
        )
    }
}

impl From<Unfit> for PullError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Platform { has } => PullError::Platform(vec![has]),
            Unfit::Layers {
                layers,
                diff_ids,
                max,
            } => PullError::Layers {
                layers,
                diff_ids,
                max,
            },
            Unfit::DiffId(digest) => PullError::BadDigest(digest),
        }
    }
}

fn offered(platforms: &[String]) -> String {
    if platforms.is_empty() {
        String::new()
    } else {
        format!(", only for {}", platforms.join(", "))
    }
}
