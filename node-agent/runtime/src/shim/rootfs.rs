//! Prepares a container's root: the overlay, its working directory, what the environment takes from it.
//!
//! Images are not trusted: every path inside the root is resolved with the root as `/`, so that no link
//! leads out of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chown, chownat, mkdirat, openat, openat2,
};

use super::mapping::{self, Users};
use crate::layout::ContainerPaths;
use crate::overlay::mount_overlay;
use crate::protocol::StartFailure;
use crate::spec::ContainerSpec;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Nobody's `passwd` is longer.
const PASSWD_BYTES_MAX: u64 = 4 << 20;

/// Mounts the container's root and returns its complete environment.
pub(super) fn prepare(
    spec: &ContainerSpec,
    paths: &ContainerPaths,
    users: Option<&Users>,
) -> Result<Vec<String>, StartFailure> {
    if spec.lower_dirs.is_empty() {
        return Err(StartFailure::BadImage {
            reason: "it has no layers".to_owned(),
        });
    }
    let mapped = users
        .map(|users| users.show_layers(&spec.lower_dirs, paths))
        .transpose()?;
    let layers = mapped.as_deref().unwrap_or(&spec.lower_dirs);
    let owner = users.map(Users::root);
    mount(layers, paths, owner).map_err(|error| StartFailure::Create {
        reason: format!("cannot mount the image's layers: {error}"),
    })?;
    refuse_links(&paths.rootfs())?;
    let root = open_root(&paths.rootfs()).map_err(|error| StartFailure::Create {
        reason: format!("cannot open the root: {error}"),
    })?;
    make_working_directory(spec, &root, owner)?;
    Ok(environment(spec, &root))
}

fn mount(layers: &[PathBuf], paths: &ContainerPaths, owner: Option<(Uid, Gid)>) -> io::Result<()> {
    for folder in [paths.rootfs(), paths.upper(), paths.work()] {
        fs::create_dir_all(folder)?;
    }
    // The writable layer's own folder becomes the root's: everybody in the container must get in.
    fs::set_permissions(paths.upper(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    if let Some((user, group)) = owner {
        chown(paths.upper(), Some(user), Some(group))?;
    }
    mount_overlay(layers, &paths.upper(), &paths.work(), &paths.rootfs())?;
    match owner {
        Some(_) => mapping::remove_layers(paths),
        None => Ok(()),
    }
}

/// libcontainer makes `/dev/…` by path before it enters the root: a link there would lead onto the node.
fn refuse_links(rootfs: &Path) -> Result<(), StartFailure> {
    for name in ["dev", "proc", "sys"] {
        match fs::symlink_metadata(rootfs.join(name)) {
            Ok(found) if !found.is_dir() => {
                return Err(StartFailure::BadImage {
                    reason: format!("/{name} is not a directory"),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

fn open_root(rootfs: &Path) -> io::Result<OwnedFd> {
    Ok(openat(
        CWD,
        rootfs,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn open_inside(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
}

/// The working directory, absolute.
pub(super) fn working_directory(spec: &ContainerSpec) -> String {
    if spec.cwd.is_empty() {
        "/".to_owned()
    } else {
        spec.cwd.clone()
    }
}

fn make_working_directory(
    spec: &ContainerSpec,
    root: &OwnedFd,
    owner: Option<(Uid, Gid)>,
) -> Result<(), StartFailure> {
    let cwd = working_directory(spec);
    let failure = |reason: String| StartFailure::BadWorkingDirectory {
        cwd: cwd.clone(),
        reason,
    };
    if !cwd.starts_with('/') {
        return Err(failure("it is not absolute".to_owned()));
    }
    // Below a mount it has to be in what is mounted there.
    if spec
        .mounts
        .iter()
        .any(|mount| Path::new(&cwd).starts_with(&mount.destination))
    {
        return Ok(());
    }
    make_folders(root, Path::new(&cwd), owner).map_err(|error| failure(io::Error::from(error).to_string()))
}

fn make_folders(root: &OwnedFd, path: &Path, owner: Option<(Uid, Gid)>) -> rustix::io::Result<()> {
    let mut prefix = std::path::PathBuf::from("/");
    let mut parent = open_inside(root, &prefix, OFlags::PATH | OFlags::DIRECTORY)?;
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                prefix.push(name);
                match open_inside(root, &prefix, OFlags::PATH | OFlags::DIRECTORY) {
                    Err(rustix::io::Errno::NOENT) => {
                        mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                        parent = open_inside(root, &prefix, OFlags::PATH | OFlags::DIRECTORY)?;
                        if let Some((user, group)) = owner {
                            chownat(&parent, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
                        }
                    }
                    found => parent = found?,
                }
            }
            Component::ParentDir => return Err(rustix::io::Errno::INVAL),
            _ => {}
        }
    }
    Ok(())
}

/// The spec's environment with `PATH` and `HOME`, which libcontainer must not have to look up: its lookup
/// would load the image's libraries into this process.
fn environment(spec: &ContainerSpec, root: &OwnedFd) -> Vec<String> {
    let mut variables: Vec<String> = spec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let has = |wanted: &str| {
        spec.env
            .iter()
            .any(|(name, value)| name == wanted && !value.is_empty())
    };
    if !has("PATH") {
        variables.retain(|variable| !variable.starts_with("PATH="));
        variables.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !has("HOME") {
        variables.retain(|variable| !variable.starts_with("HOME="));
        variables.push(format!("HOME={}", home_of(spec.user.uid, root)));
    }
    variables
}

fn home_of(uid: u32, root: &OwnedFd) -> String {
    let default = if uid == 0 { "/root" } else { "/" };
    read_passwd(root)
        .ok()
        .and_then(|passwd| home_in(&passwd, uid))
        .unwrap_or_else(|| default.to_owned())
}

fn read_passwd(root: &OwnedFd) -> io::Result<String> {
    // NONBLOCK: an image might put a pipe there.
    let file = File::from(open_inside(
        root,
        Path::new("/etc/passwd"),
        OFlags::RDONLY | OFlags::NONBLOCK,
    )?);
    let mut text = Vec::new();
    file.take(PASSWD_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let home = *fields.get(5)?;
        (fields[2].parse() == Ok(uid) && home.starts_with('/')).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::home_in;

    #[test]
    fn the_home_comes_from_the_images_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\n";
        assert_eq!(home_in(passwd, 33).as_deref(), Some("/var/www"));
        assert_eq!(home_in(passwd, 7), None);
    }
}
