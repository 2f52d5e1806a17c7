//! The files of an image as a volume: its unpacked layers, read-only.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, move_mount,
};

use crate::mounting::is_mounted;

/// The kernel takes one page of options, with the closing zero.
const OPTIONS_BYTES_MAX: usize = 4095;

/// Mounts the layers (top first) on `path`, unless that was done before.
pub(crate) fn mount_layers(path: &Path, layers: &[PathBuf]) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if is_mounted(path)? {
        return Ok(());
    }
    match layers {
        [] => Err(io::Error::other("the image has no layers")),
        // An overlay without a writable layer needs two layers.
        [only] => {
            let flags = MsFlags::MS_BIND;
            mount(Some(only), path, None::<&str>, flags, None::<&str>)?;
            let flags =
                flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
            Ok(mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?)
        }
        several => overlay(path, several),
    }
}

fn overlay(path: &Path, layers: &[PathBuf]) -> io::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    let options = options(layers);
    if options.len() <= OPTIONS_BYTES_MAX {
        return Ok(mount(
            Some("overlay"),
            path,
            Some("overlay"),
            flags,
            Some(options.as_os_str()),
        )?);
    }
    // Layer by layer: Linux 6.5.
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers {
        fsconfig_set_string(&overlay, "lowerdir+", layer)?;
    }
    fsconfig_create(&overlay)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mounted = fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(move_mount(
        &mounted,
        "",
        rustix::fs::CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

fn options(layers: &[PathBuf]) -> OsString {
    let mut text = b"lowerdir=".to_vec();
    for (index, layer) in layers.iter().enumerate() {
        if index > 0 {
            text.push(b':');
        }
        for byte in layer.as_os_str().as_bytes() {
            if matches!(byte, b'\\' | b':' | b',') {
                text.push(b'\\');
            }
            text.push(*byte);
        }
    }
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounting::unmount;

    #[test]
    fn layers_lie_over_each_other_and_cannot_be_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let layer = |name: &str| {
            let layer = folder.path().join(name);
            fs::create_dir(&layer).unwrap();
            fs::write(layer.join("which"), name).unwrap();
            fs::write(layer.join(format!("only-{name}")), "").unwrap();
            layer
        };
        let layers = [layer("top"), layer("bottom,:")];
        for (name, count) in [("one", 1), ("two", 2)] {
            let volume = folder.path().join(name);
            mount_layers(&volume, &layers[..count]).unwrap();
            assert_eq!(fs::read_to_string(volume.join("which")).unwrap(), "top");
            assert_eq!(volume.join("only-bottom,:").exists(), count == 2);
            let refused = fs::write(volume.join("which"), "changed").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
            unmount(&volume).unwrap();
            assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
        }
    }
}
