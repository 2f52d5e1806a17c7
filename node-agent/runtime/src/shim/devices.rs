//! What a container sees of the node's devices, and what the node's kernel offers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use rustix::fs::{major, minor};

use crate::protocol::StartFailure;
use crate::spec::ContainerSpec;

/// Folders and files of `/dev` that every container has of its own.
const OWN: [&str; 7] = ["pts", "shm", "mqueue", "console", "ptmx", "fd", "core"];

/// Refuses an AppArmor profile where the kernel cannot apply it: a container must not run less confined than asked.
pub(super) fn check_apparmor(container: &ContainerSpec) -> Result<(), StartFailure> {
    let Some(profile) = &container.apparmor_profile else {
        return Ok(());
    };
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    let reason = if !enabled.starts_with('Y') {
        format!("AppArmor is not enabled on this node, so profile {profile:?} cannot be applied")
    } else if !is_loaded(profile) {
        format!("AppArmor profile {profile:?} is not loaded on this node: load it with apparmor_parser")
    } else {
        return Ok(());
    };
    Err(StartFailure::BadSpec { reason })
}

fn is_loaded(profile: &str) -> bool {
    // Lines are `name (mode)`.
    fs::read_to_string("/sys/kernel/security/apparmor/profiles")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.rsplit_once(" ("))
        .any(|(name, _)| name == profile)
}

/// The devices of the node, for a privileged container.
pub(super) fn all() -> Result<Vec<LinuxDevice>, OciSpecError> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), true, &mut devices)?;
    Ok(devices)
}

fn collect(folder: &Path, top: bool, devices: &mut Vec<LinuxDevice>) -> Result<(), OciSpecError> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let own = top && OWN.iter().any(|name| entry.file_name() == *name);
        // What cannot be looked at has just gone; links lead to what is found anyway.
        let Ok(found) = entry.metadata() else { continue };
        let kind = found.file_type();
        if own || kind.is_symlink() {
            continue;
        }
        if kind.is_dir() {
            collect(&entry.path(), false, devices)?;
        } else if kind.is_char_device() {
            devices.push(device(&entry.path(), &found, LinuxDeviceType::C)?);
        } else if kind.is_block_device() {
            devices.push(device(&entry.path(), &found, LinuxDeviceType::B)?);
        }
    }
    Ok(())
}

fn device(path: &Path, found: &fs::Metadata, kind: LinuxDeviceType) -> Result<LinuxDevice, OciSpecError> {
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(kind)
        .major(i64::from(major(found.rdev())))
        .minor(i64::from(minor(found.rdev())))
        .file_mode(found.mode() & 0o7777)
        .uid(found.uid())
        .gid(found.gid())
        .build()
}
