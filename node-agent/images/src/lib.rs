//! Content-addressed image store: imports, layers unpacked once, the built-in demo images.
//!
//! Synchronous, and safe to use from several processes at once on one root folder.
//! Never trusts an archive: digests are verified, no entry is written outside its layer, and
//! sizes, entry counts and compression ratios are capped.

mod archive;
mod builtin;
mod files;
mod import;
mod index;
mod layer;
mod manifest;
mod reference;
mod store;
mod tarball;
mod unpack;
mod users;

pub use import::ImportError;
pub use layer::{LayerError, Limits};
pub use reference::{ParseReferenceError, normalize};
pub use store::{Image, ImageConfig, ImageSummary, Store, StoreError};
pub use unpack::UnpackError;
pub use users::{ResolveUserError, User, resolve_user};
