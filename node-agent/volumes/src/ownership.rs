//! Gives a volume to the pod's `fsGroup`.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

const SET_GROUP_ID: u32 = 0o2000;

/// What a pod's `fsGroup` means for a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) group: u32,
    /// The group may read, and not write.
    pub(crate) read_only: bool,
    /// Leave everything as it is when the volume's root is right already.
    pub(crate) on_root_mismatch: bool,
}

impl Ownership {
    /// What the pod asks for, if it does.
    pub(crate) fn of(pod: &Pod, read_only: bool) -> Option<Ownership> {
        let context = pod.spec.as_ref()?.security_context.as_ref()?;
        Some(Ownership {
            group: u32::try_from(context.fs_group?).ok()?,
            read_only,
            on_root_mismatch: context.fs_group_change_policy.as_deref() == Some("OnRootMismatch"),
        })
    }

    /// Changes group and mode of everything below `root`. Links are not followed.
    pub(crate) fn apply(&self, root: &Path) -> io::Result<()> {
        if self.on_root_mismatch && self.is_right(&fs::symlink_metadata(root)?) {
            return Ok(());
        }
        self.apply_below(root)
    }

    fn is_right(&self, found: &Metadata) -> bool {
        found.gid() == self.group && self.mode(found) == found.mode() & 0o7777
    }

    fn apply_below(&self, path: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        if found.is_dir() {
            for entry in fs::read_dir(path)? {
                self.apply_below(&entry?.path())?;
            }
        }
        // The root last: while it is wrong, a walk that was cut short is made again.
        lchown(path, None, Some(self.group))?;
        if !found.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(self.mode(&found)))?;
        }
        Ok(())
    }

    fn mode(&self, found: &Metadata) -> u32 {
        let mode = found.mode() & 0o7777;
        let mask = if self.read_only { 0o440 } else { 0o660 };
        match found.is_dir() {
            true => mode | mask | 0o110 | SET_GROUP_ID,
            false => mode | mask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(path: &Path) -> (u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.gid(), found.mode() & 0o7777)
    }

    #[test]
    fn everything_becomes_the_groups_and_links_are_not_followed() {
        let volume = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir(volume.path().join("d")).unwrap();
        fs::write(volume.path().join("d/f"), "").unwrap();
        fs::set_permissions(volume.path().join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(outside.path(), volume.path().join("link")).unwrap();
        let before = state(outside.path());
        let mut ownership = Ownership {
            group: 2000,
            read_only: false,
            on_root_mismatch: true,
        };
        ownership.apply(volume.path()).unwrap();
        assert_eq!(state(volume.path()), (2000, 0o2777));
        assert_eq!(state(&volume.path().join("d/f")), (2000, 0o660));
        assert_eq!(state(outside.path()), before);

        fs::write(volume.path().join("new"), "").unwrap();
        lchown(volume.path().join("new"), None, Some(0)).unwrap();
        ownership.apply(volume.path()).unwrap();
        assert_eq!(state(&volume.path().join("new")).0, 0, "the root is right");
        ownership.on_root_mismatch = false;
        ownership.apply(volume.path()).unwrap();
        assert_eq!(state(&volume.path().join("new")).0, 2000);
    }
}
