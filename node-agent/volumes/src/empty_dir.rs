//! Empty folders on disk and in memory.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::MsFlags;

use crate::mounting::mount_new;
use crate::ownership::Ownership;

/// Everybody in the pod may write.
const MODE: u32 = 0o777;

/// A folder on disk. One that is there keeps what is in it.
pub(crate) fn on_disk(path: &Path, ownership: Option<&Ownership>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    finish(path, ownership)
}

/// A file system in memory that holds so much and no more.
pub(crate) fn in_memory(path: &Path, bytes: Option<u64>, ownership: Option<&Ownership>) -> io::Result<()> {
    if crate::mounting::is_mounted(path)? {
        return Ok(());
    }
    let options = match bytes {
        Some(bytes) => format!("mode=0777,size={bytes}"),
        None => "mode=0777".to_owned(),
    };
    mount_new("tmpfs", path, MsFlags::empty(), &options)?;
    finish(path, ownership)
}

/// Huge pages as files.
pub(crate) fn huge_pages(
    path: &Path,
    page_size: Option<&str>,
    ownership: Option<&Ownership>,
) -> io::Result<()> {
    if crate::mounting::is_mounted(path)? {
        return Ok(());
    }
    let options = match page_size {
        Some(size) => format!("mode=0777,pagesize={size}"),
        None => "mode=0777".to_owned(),
    };
    mount_new("hugetlbfs", path, MsFlags::empty(), &options)?;
    finish(path, ownership)
}

fn finish(path: &Path, ownership: Option<&Ownership>) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    match ownership {
        Some(ownership) => ownership.apply(path),
        None => Ok(()),
    }
}
