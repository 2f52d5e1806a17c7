//! Virtual machines on this one, for what it cannot show itself: pure cgroup v2, an older kernel, and a power cut.
//!
//! All boot the kernel that `deploy/vm/build` has fetched, in qemu's software emulation (no `/dev/kvm`), from a disk made
//! of the files that they are given. A [`Guest`] runs one script and powers off. A [`Machine`] has a second disk, which
//! [loses its write cache](disk) when its power is cut, and a [network](network) with others of its kind; three of them are
//! a [`Fleet`], one flotilla cluster.

pub mod disk;
mod fleet;
mod guest;
mod image;
mod machine;
pub mod network;
mod qemu;

use std::path::{Path, PathBuf};

pub use self::{
    fleet::{Fleet, MACHINES},
    guest::{Console, run},
    image::Image,
    machine::Machine,
};

/// The root of the source tree.
pub fn tree() -> PathBuf {
    let mut ancestors = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    ancestors
        .nth(2)
        .expect("this crate is two folders deep")
        .to_owned()
}

fn vm_folder() -> PathBuf {
    tree().join("target/vm")
}
