//! Volumes of pods: what each is to hold, and how it gets onto the node and into the containers.
//!
//! What a pod wants is worked out by plain functions (`plan`, `content`, `mounts`); [`Volumes`] makes it so. All of it
//! blocks, so callers run it off their event loop. Nothing here talks to the control plane: objects and tokens are
//! given, and what is on the node is the only memory.

mod atomic;
mod content;
mod disk;
mod empty_dir;
mod exclusive;
mod host_path;
mod image;
mod mounting;
mod mounts;
mod ownership;
mod persistent;
mod places;
mod plan;
mod usage;
mod volumes;

pub use content::{TokenWanted, Tokens, tokens_wanted};
pub use disk::DiskError;
pub use mounts::MountError;
pub use persistent::{Disk, Duty, disk, duty};
pub use places::{PlaceKind, VolumePlace};
pub use plan::images_wanted;
pub use usage::{DiskUsage, disk_usage};
pub use volumes::{OpenVolumesError, Options, Order, SetUpError, TearDownError, Volumes};
