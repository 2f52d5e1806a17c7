//! Content-addressed image store: imports, pulls, layers unpacked once, the built-in demo images.
//!
//! The store is synchronous, and safe to use from several processes at once on one root folder; only pulling is
//! asynchronous. Never trusts an archive or a registry: digests are verified, no entry is written outside its layer,
//! and sizes, entry counts and compression ratios are capped.

mod archive;
mod builtin;
mod credentials;
mod files;
mod import;
mod index;
mod layer;
mod manifest;
mod peers;
mod pull;
mod reference;
mod registries;
mod registry;
mod space;
mod store;
mod tarball;
mod unpack;
mod users;

pub use credentials::{Credential, CredentialsError, Keyring};
pub use import::ImportError;
pub use layer::{LayerError, Limits};
pub use peers::{LayerBytes, PeerError, Peers};
pub use pull::{Progress, PullError, Pulled, Puller, Settings, Ticket};
pub use reference::{ParseReferenceError, normalize};
pub use registries::RegistriesError;
pub use registry::RegistryError;
pub use space::{SpacePolicy, Usage};
pub use store::{Freed, Image, ImageConfig, ImageSummary, Store, StoreError};
pub use unpack::UnpackError;
pub use users::{ResolveUserError, User, resolve_user};
