//! Mounts a container's root: the image's layers below, a writable folder above.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

/// The kernel takes one page of options, with the closing zero.
const OPTIONS_BYTES_MAX: usize = 4095;

/// Mounts `lower` (top first) with `upper` and `work` on `target`.
///
/// Changes the working directory for a moment: call it in a process of one thread.
pub(crate) fn mount_overlay(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    // `volatile`: the kernel need not sync the writable layer, which nobody mounts a second time. Linux 5.10.
    match mount_with_options(lower, upper, work, target, true) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            mount_with_options(lower, upper, work, target, false)
        }
        result => result,
    }
}

fn mount_with_options(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    volatile: bool,
) -> io::Result<()> {
    // Paths relative to the layers' common folder are much shorter, so that more layers fit.
    let base = common_folder(lower);
    let relative = lower.iter().map(|path| path.strip_prefix(&base).unwrap_or(path));
    let options = options(relative, upper, work, volatile);
    if options.len() > OPTIONS_BYTES_MAX {
        return mount_by_links(lower, upper, work, target, volatile);
    }
    mount_in(&base, &options, target)
}

fn mount_in(base: &Path, options: &OsStr, target: &Path) -> io::Result<()> {
    std::env::set_current_dir(base)?;
    let kind = Some("overlay");
    let result = mount(kind, target, kind, MsFlags::empty(), Some(options));
    std::env::set_current_dir("/")?;
    Ok(result?)
}

/// For images of very many layers: by links with short names, which the kernel follows while it mounts. (`lowerdir+`
/// has no such limit, but needs Linux 6.5.)
fn mount_by_links(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    volatile: bool,
) -> io::Result<()> {
    let links = work.with_file_name("links");
    fs::create_dir(&links)?;
    let names: Vec<PathBuf> = (0..lower.len())
        .map(|number| PathBuf::from(number.to_string()))
        .collect();
    let linked = names
        .iter()
        .zip(lower)
        .try_for_each(|(name, layer)| symlink(layer, links.join(name)));
    let options = options(names.iter().map(PathBuf::as_path), upper, work, volatile);
    let mounted = linked.and_then(|()| mount_in(&links, &options, target));
    fs::remove_dir_all(&links)?;
    mounted
}

fn options<'a>(lower: impl Iterator<Item = &'a Path>, upper: &Path, work: &Path, volatile: bool) -> OsString {
    let mut text = b"lowerdir=".to_vec();
    for (index, layer) in lower.enumerate() {
        if index > 0 {
            text.push(b':');
        }
        push_escaped(&mut text, layer);
    }
    text.extend(b",upperdir=");
    push_escaped(&mut text, upper);
    text.extend(b",workdir=");
    push_escaped(&mut text, work);
    if volatile {
        text.extend(b",volatile");
    }
    OsString::from_vec(text)
}

fn push_escaped(text: &mut Vec<u8>, path: &Path) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
}

/// The deepest folder that strictly contains all paths.
fn common_folder(paths: &[PathBuf]) -> PathBuf {
    let mut common = paths
        .first()
        .and_then(|path| path.parent())
        .unwrap_or(Path::new("/"));
    while !paths
        .iter()
        .all(|path| path.starts_with(common) && path != common)
    {
        common = common.parent().unwrap_or(Path::new("/"));
        if common == Path::new("/") {
            break;
        }
    }
    common.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_escape_what_the_kernel_splits_at() {
        let layers = [Path::new("a:b"), Path::new("c,d")];
        let options = options(layers.into_iter(), Path::new("/u"), Path::new("/w"), false);
        assert_eq!(
            options,
            OsString::from("lowerdir=a\\:b:c\\,d,upperdir=/u,workdir=/w")
        );
    }

    #[test]
    fn the_common_folder_contains_every_layer() {
        let folder = |paths: &[&str]| common_folder(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(folder(&["/s/layers/a/fs"]), PathBuf::from("/s/layers/a"));
        assert_eq!(
            folder(&["/s/layers/a/fs", "/s/layers/b/fs"]),
            PathBuf::from("/s/layers")
        );
        assert_eq!(folder(&["/s/a", "/t/b"]), PathBuf::from("/"));
    }
}
