//! Why an agent cannot be set up, and why it stopped.

use std::path::PathBuf;

use crate::identity::JoinError;

/// Why an agent cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum NewAgentError {
    /// A folder cannot be made.
    #[error("cannot make the folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The runtime cannot be set up.
    #[error("cannot open the container runtime")]
    Runtime(#[from] flotilla_runtime::OpenRuntimeError),
    /// The image store cannot be opened.
    #[error("cannot open the image store")]
    Images(#[from] flotilla_images::StoreError),
    /// The network's state cannot be read.
    #[error("cannot open the network")]
    Network(#[from] flotilla_network::NetworkError),
    /// The volumes' folders cannot be used.
    #[error("cannot prepare for volumes")]
    Volumes(#[from] flotilla_volumes::OpenVolumesError),
}

/// Why an agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunAgentError {
    /// The node could not join the cluster.
    #[error("cannot join the cluster")]
    Join(#[from] JoinError),
    /// The checkpoints' folder cannot be used.
    #[error("cannot keep the pods' state")]
    Checkpoints(#[source] Box<dyn std::error::Error + Send + Sync>),
}
