//! Content-addressed image store: imports, layers unpacked once, the built-in demo images.
//!
//! Synchronous, and safe to use from several processes at once on one root folder.
//! Never trusts an archive: digests are verified, no entry is written outside its layer, and
//! sizes, entry counts and compression ratios are capped.

mod reference;
mod store;
mod users;

pub use reference::{ParseReferenceError, normalize};
pub use store::{Image, ImageConfig, ImageSummary, ImportError, Store, StoreError};
pub use users::{ResolveUserError, User, resolve_user};
